"""ModelConfig -> parameters and FLOPs of each part, without building the model."""

from dataclasses import dataclass
from itertools import pairwise

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.stem import compact_widths, stem_widths


@dataclass(frozen=True)
class PartCount:
    """Shapes that go into and come out of one part of the model, or of all blocks together, and its cost.

    Shapes and operations are those of one image; a multiply-add counts as two operations.
    """

    part: str
    shape: str
    parameters: int
    flops: int


def count_parameters(config: ModelConfig) -> int:
    """Return the number of parameters of the model."""
    return sum(row.parameters for row in count_parts(config))


def count_flops(config: ModelConfig) -> int:
    """Return the floating-point operations of the forward pass for one image: two per multiply-add.

    Only matrix products count, as usual in the field: norms, activations, softmax, rotations and biases add about 1%.
    Papers that give 4.6 "GFLOPs" for ViT-S/16 count multiply-adds; halve this number to compare.
    """
    return sum(row.flops for row in count_parts(config))


def count_parts(config: ModelConfig) -> list[PartCount]:
    """Return one row per part, in the order of the forward pass. The rows add up to the whole model."""
    dim, depth, patches = config.embed_dim, config.depth, config.num_patches
    (height, width), (rows, columns) = config.img_size, config.grid_size
    tokens, norm, classes = f"{config.num_tokens}x{dim}", _norm(config, dim), config.num_classes
    final_norms = norm * (config.final_norm + config.embed_norm)
    layer_scale = 2 * dim if config.layer_scale else 0
    features = config.num_features
    parts = [
        PartCount("tokenizer", f"{config.in_chans}x{height}x{width} -> {patches}x{dim}", *_tokenizer(config)),
        PartCount("patch_norm", f"{patches}x{dim}", norm * config.patch_norm, 0),
        PartCount(
            "position", f"{rows}x{columns}x{dim}", patches * dim if config.position == "learned" else 0, 0
        ),
        PartCount("prefix", f"{patches}x{dim} -> {tokens}", _prefix(config), 0),
        PartCount("relation", f"{rows}x{columns}, {depth} blocks", _relation(config), 0),
        PartCount(
            f"encoder.blocks x{depth}: attn",
            f"{tokens} -> {tokens}, {config.num_heads} heads of {config.attn_dim // config.num_heads}",
            *(depth * count for count in _attention(config)),
        ),
        PartCount(
            f"encoder.blocks x{depth}: mlp",
            f"{tokens} -> {config.num_tokens}x{config.mlp_dim} -> {tokens}",
            depth * _mlp(config),
            depth * config.num_tokens * _mlp_flops(config),
        ),
        PartCount(f"encoder.blocks x{depth}: norms, scales", tokens, depth * (2 * norm + layer_scale), 0),
        PartCount("encoder.norm", tokens, final_norms, 0),
        PartCount("pool", f"{tokens} -> {features}", *_pool(config)),
        PartCount("fc_norm", f"{features}", _norm(config, features) if config.fc_norm else 0, 0),
        PartCount("head", f"{features} -> {classes or features}", (features + 1 + config.distill_token) * classes,
                  2 * features * classes),
    ]  # fmt: skip
    optional = ("patch_norm", "relation", "fc_norm")
    return [part for part in parts if part.parameters or part.part not in optional]


def _norm(config: ModelConfig, width: int) -> int:
    return width if config.norm == "rms" else 2 * width


def stem_channels(config: ModelConfig) -> list[int]:
    """Return the number of channels after each convolution or pooling of the stem; none for other stems."""
    size, dim = config.patch_size, config.embed_dim
    match config.stem:
        case "conv":
            return stem_widths(size, dim, config.stem_ratio)
        case "cct":
            return compact_widths(size, dim)
        case _:
            return []


def _tokenizer(config: ModelConfig) -> tuple[int, int]:
    """Return parameters and FLOPs of the stem."""
    dim, patches, bias = config.embed_dim, config.num_patches, config.patch_bias
    if config.stem in ("linear", "shifted", "normed"):
        values = config.in_chans * config.patch_size**2 * (5 if config.stem == "shifted" else 1)
        norms = {"shifted": 2 * values, "normed": 2 * (values + dim)}.get(config.stem, 0)
        return values * dim + dim * bias + norms, 2 * patches * values * dim
    strided = config.stem == "conv"  # then each convolution halves the image; in `cct` a pooling layer does
    widths = stem_channels(config)
    pixels, parameters, flops = config.img_size[0] * config.img_size[1], 0, 0
    for narrow, wide in pairwise([config.in_chans, *widths]):
        pixels_out = pixels // 4
        parameters += 9 * narrow * wide + (2 * wide if strided else wide * bias)
        flops += 2 * 9 * narrow * wide * (pixels_out if strided else pixels)
        pixels = pixels_out
    if strided:
        parameters += widths[-1] * dim + dim * bias
        flops += 2 * pixels * widths[-1] * dim
    return parameters, flops


def _prefix(config: ModelConfig) -> int:
    if config.position != "learned" or config.prefix_position == "none":
        positions = 0
    else:
        registers = config.num_registers if config.prefix_position == "all" else 0
        positions = config.has_class_token + config.distill_token + registers
    return (config.num_prefix_tokens + positions) * config.embed_dim


def _relation(config: ModelConfig) -> int:
    (rows, columns), per_head = config.grid_size, config.depth * config.num_heads
    if config.rotary == "mixed":
        return config.depth * config.attn_dim
    if config.rotary == "none" and config.relative_bias:
        return per_head * ((2 * rows - 1) * (2 * columns - 1) + (3 if config.num_prefix_tokens else 0))
    return 0


def _attention(config: ModelConfig) -> tuple[int, int]:
    """Return parameters and FLOPs of the attention of one block."""
    dim, inner, length = config.embed_dim, config.attn_dim, config.num_tokens
    matrices = (5 if config.attn_gate else 4) * dim * inner
    qkv_bias = (3 if config.key_bias else 2) * inner * config.qkv_bias
    biases = qkv_bias + dim * config.proj_bias + inner * config.attn_gate
    norms = 2 * _norm(config, inner // config.num_heads) * config.qk_norm
    # QKᵀ and its product with V take length² x inner multiply-adds each, for any number of heads.
    return matrices + biases + norms + config.locality, 2 * (matrices * length + 2 * length**2 * inner)


def _mlp(config: ModelConfig) -> int:
    """Return the parameters of one MLP."""
    dim, hidden = config.embed_dim, config.mlp_dim
    first = hidden * (2 if config.mlp == "gated" else 1)
    return first * dim + hidden * dim + (first + dim) * config.mlp_bias


def _mlp_flops(config: ModelConfig) -> int:
    """Return the FLOPs of one MLP for one token."""
    return 2 * config.embed_dim * config.mlp_dim * (3 if config.mlp == "gated" else 2)


def _pool(config: ModelConfig) -> tuple[int, int]:
    """Return parameters and FLOPs of the pool."""
    dim, length = config.embed_dim, config.num_patches
    if config.pool == "sequence":
        return dim + 1, 4 * length * dim
    if config.pool != "map":
        return 0, 0
    parameters = dim + 4 * (dim**2 + dim) + _norm(config, dim) + _mlp(config)
    return parameters, 2 * (2 * dim**2 + 2 * length * dim**2 + 2 * length * dim) + _mlp_flops(config)
