"""`ModelConfig` -> parameters and FLOPs, part by part, without building anything."""

from dataclasses import dataclass

from vitreous.model.config import ModelConfig


@dataclass(frozen=True)
class PartCount:
    """A row of the table.

    Attributes:
        part: The submodule's name; blocks are counted together.
        shape: What goes in and what comes out, for one image.
        parameters: Learned numbers.
        flops: Twice the multiply-adds of one image's forward.
    """

    part: str
    shape: str
    parameters: int
    flops: int


def count_parameters(config: ModelConfig) -> int:
    """Learned numbers of the model."""
    return sum(row.parameters for row in count_parts(config))


def count_flops(config: ModelConfig) -> int:
    """Floating-point operations of one image's forward: two per multiply-add of every matrix product.

    Norms, activations, softmax and biases are left out, as the field does; together they are about a hundredth. Tables
    that speak of 4.6 "GFLOPs" for ViT-S/16 count multiply-adds: halve ours to compare.
    """
    return sum(row.flops for row in count_parts(config))


def count_parts(config: ModelConfig) -> list[PartCount]:
    """One row per part, in the order of the forward; the rows add up to the model."""
    dim, depth, patches, length = config.embed_dim, config.depth, config.num_patches, config.num_tokens
    (height, width), (rows, columns) = config.img_size, config.grid_size
    patch_values = config.in_chans * config.patch_size**2
    tokens = f"{length}x{dim}"
    classes, learned = config.num_classes, config.position == "learned"
    return [
        PartCount(
            "tokenizer",
            f"{config.in_chans}x{height}x{width} -> {patches}x{dim}",
            patch_values * dim + dim,
            2 * patches * patch_values * dim,
        ),
        PartCount("position", f"{rows}x{columns}x{dim}", patches * dim if learned else 0, 0),
        PartCount(
            "prefix",
            f"{patches}x{dim} -> {tokens}",
            config.num_prefix_tokens * (2 * dim if learned else dim),
            0,
        ),
        PartCount(
            f"encoder.blocks x{depth}: attn",
            f"{tokens} -> {tokens}, {config.num_heads} heads of {dim // config.num_heads}",
            depth * _attention_parameters(config),
            # QKᵀ and its product with V take length² x dim multiply-adds each, whatever the number of heads.
            depth * 2 * (4 * length * dim**2 + 2 * length**2 * dim),
        ),
        PartCount(
            f"encoder.blocks x{depth}: mlp",
            f"{tokens} -> {length}x{config.mlp_dim} -> {tokens}",
            depth * (2 * dim * config.mlp_dim + config.mlp_dim + dim),
            depth * 4 * length * dim * config.mlp_dim,
        ),
        PartCount(f"encoder.blocks x{depth}: norms", tokens, depth * 4 * dim, 0),
        PartCount("encoder.norm", tokens, 2 * dim, 0),
        PartCount("pool", f"{tokens} -> {dim}", 0, 0),
        PartCount(
            "head",
            f"{dim} -> {classes or dim}",
            dim * classes + classes,
            2 * dim * classes,
        ),
    ]


def _attention_parameters(config: ModelConfig) -> int:
    dim = config.embed_dim
    return 3 * dim**2 + (3 * dim if config.qkv_bias else 0) + dim**2 + dim
