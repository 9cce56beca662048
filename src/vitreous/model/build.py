"""`ModelConfig` -> VisionTransformer: every choice of a part is made here, once."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from vitreous.model.attention import Attention, KeylessBiasLinear, LocalityAttention, Projection
from vitreous.model.backbone import AnyRelation, AnyTokenizer
from vitreous.model.config import ModelConfig
from vitreous.model.encoder import Block, Encoder, PostNormBlock
from vitreous.model.head import DistilledHead, Head
from vitreous.model.init import initialise
from vitreous.model.mlp import GatedMlp, Mlp, QuickGELU
from vitreous.model.patch_drop import PatchDrop
from vitreous.model.pool import AttentionPool, ClassTokenPool, MaxPool, MeanPool, SequencePool, TokenMeanPool
from vitreous.model.position import LearnedPosition, NoPosition, SinCosPosition, SinusoidalPosition
from vitreous.model.prefix import Prefix
from vitreous.model.presets import config_for
from vitreous.model.relative_bias import RelativeBias
from vitreous.model.residual import DropPath, LayerScale, drop_path_rates
from vitreous.model.rotary import MixedRotaryPosition, RotaryPosition
from vitreous.model.stem import CompactStem, ConvStem
from vitreous.model.tokenizer import NormedTokenizer, ShiftedTokenizer, Tokenizer
from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive

_STEMS: dict[str, type[AnyTokenizer]] = {
    "linear": Tokenizer, "shifted": ShiftedTokenizer, "normed": NormedTokenizer, "conv": ConvStem, "cct": CompactStem,
}  # fmt: skip
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU, "gelu_tanh": partial(nn.GELU, approximate="tanh"), "quick_gelu": QuickGELU, "relu": nn.ReLU,
    "silu": nn.SiLU,
}  # fmt: skip


class Parts(TypedDict):
    """The arguments of `VisionTransformer`."""

    tokenizer: AnyTokenizer
    patch_norm: nn.Module
    position: nn.Module
    patch_drop: nn.Module
    prefix: nn.Module
    relation: AnyRelation | None
    encoder: Encoder
    pool: nn.Module
    fc_norm: nn.Module
    head: nn.Module


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    drop_path_rate: float = 0.0,
    seed: int | None = None,
) -> VisionTransformer:
    """A freshly initialised model by name, e.g. `vit_small_patch16_224`.

    Args:
        name: `vit_{size}_patch{px}_{px}` with one of `presets.SIZES`, shorter with `img_size` and `patch_size` given,
            or a published family's, as timm has it: `deit3_base_patch16_224`, `vit_small_patch14_dinov2` …
        num_classes: Logits; 0 returns features instead; None as the name was published, mostly 1000.
        in_chans: Channels of an image.
        img_size: Side, or height and width, in px; overrides the name's.
        patch_size: Side of a patch in px; overrides the name's.
        drop_path_rate: Stochastic depth of the last block.
        seed: Makes the weights reproducible; None draws them from torch's global generator.

    Raises:
        UnknownNameError: No such name; the nearest one is suggested.
        ConfigError: A size that nobody gave, or a value that breaks a rule.
    """
    config = config_for(
        name,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size,
        patch_size=patch_size,
        drop_path_rate=drop_path_rate,
    )
    generator = None if seed is None else torch.Generator().manual_seed(derive(seed, "init"))
    return build_model(config, generator=generator)


def build_model(
    config: ModelConfig, *, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> VisionTransformer:
    """A freshly initialised model, in training mode.

    Args:
        config: What to build.
        device: Where it shall live. Weights are drawn on the CPU first, so that they are the same everywhere; `meta`
            draws and allocates nothing: shapes alone.
        generator: Where the weights come from, a CPU generator; None takes torch's global one.
    """
    model = _skeleton(config)
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device="cpu")
    initialise(model, scheme=config.init, generator=generator)
    return model.to(device)


def model_from_state(config: ModelConfig, state: Mapping[str, Tensor]) -> VisionTransformer:
    """A model that holds these very tensors, in their dtype and on their device; no weight is drawn or copied.

    Args:
        config: What to build.
        state: Every parameter by name, of the right shape.

    Raises:
        RuntimeError: PyTorch's own, for names or shapes that do not fit; `weights` checks and explains before.
    """
    first = next(iter(state.values()))
    model = _skeleton(config).to(first.dtype).to_empty(device=first.device)
    model.load_state_dict(dict(state), strict=True, assign=True)
    return model


def build_parts(config: ModelConfig) -> Parts:
    """The parts that a configuration asks for, not yet initialised by our rules."""
    pool, head = build_pool_and_head(config)
    return Parts(
        tokenizer=_tokenizer(config),
        patch_norm=_norm(config, config.embed_dim) if config.patch_norm else nn.Identity(),
        position=_position(config),
        patch_drop=PatchDrop(config.patch_drop_rate),
        prefix=Prefix(
            embed_dim=config.embed_dim,
            class_token=config.has_class_token,
            distill_token=config.distill_token,
            num_registers=config.num_registers,
            # A token beside fixed or no positions has no number, only itself.
            position=config.prefix_position if config.position == "learned" else "none",
        )
        if config.num_prefix_tokens
        else nn.Identity(),
        relation=_relation(config),
        encoder=_encoder(config),
        pool=pool,
        fc_norm=_norm(config, config.num_features) if config.fc_norm else nn.Identity(),
        head=head,
    )


def build_pool_and_head(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    """The part from tokens to features, and the one from features to logits."""
    head = DistilledHead if config.distill_token else Head
    return _pool(config), (
        head(num_features=config.num_features, num_classes=config.num_classes) if config.num_classes else nn.Identity()
    )


def _skeleton(config: ModelConfig) -> VisionTransformer:
    # The meta device spares PyTorch's own initialisation, which `initialise` or loaded weights would overwrite.
    with torch.device("meta"):
        return VisionTransformer(config, **build_parts(config))


def _tokenizer(config: ModelConfig) -> AnyTokenizer:
    return _STEMS[config.stem](
        patch_size=config.patch_size,
        in_chans=config.in_chans,
        embed_dim=config.embed_dim,
        bias=config.patch_bias,
        img_size=None if config.dynamic_img_size else config.img_size,
    )


def _position(config: ModelConfig) -> nn.Module:
    grid_size, embed_dim = config.grid_size, config.embed_dim
    match config.position:
        case "learned":
            return LearnedPosition(grid_size=grid_size, embed_dim=embed_dim, interpolation=config.position_resize)
        case "sinusoidal":
            return SinusoidalPosition(grid_size=grid_size, embed_dim=embed_dim)
        case "sincos2d" | "sincos2d_big_vision" as kind:
            variant: Literal["mae", "big_vision"] = "mae" if kind == "sincos2d" else "big_vision"
            return SinCosPosition(grid_size=grid_size, embed_dim=embed_dim, variant=variant)
        case "none":
            return NoPosition()


def _relation(config: ModelConfig) -> AnyRelation | None:
    grid_size, depth, count = config.grid_size, config.depth, config.num_prefix_tokens
    heads, head_dim = config.num_heads, config.attn_dim // config.num_heads
    match config.rotary:
        case "axial" | "dinov3" as kind:
            return RotaryPosition(
                grid_size=grid_size,
                head_dim=head_dim,
                depth=depth,
                num_prefix_tokens=count,
                kind=kind,
                theta=config.rotary_theta,
            )
        case "mixed":
            return MixedRotaryPosition(
                grid_size=grid_size,
                head_dim=head_dim,
                num_heads=heads,
                depth=depth,
                num_prefix_tokens=count,
                theta=config.rotary_theta,
            )
        case "none" if config.relative_bias:
            return RelativeBias(grid_size=grid_size, num_heads=heads, depth=depth, num_prefix_tokens=count)
        case "none":
            return None


def _encoder(config: ModelConfig) -> Encoder:
    rates = drop_path_rates(config.drop_path_rate, config.depth, config.drop_path_schedule)
    return Encoder(
        [_block(config, drop_path_rate=rate) for rate in rates],
        norm=_norm(config, config.embed_dim) if config.final_norm else nn.Identity(),
        norm_pre=_norm(config, config.embed_dim) if config.embed_norm else None,
        drop_rate=config.drop_rate,
    )


def _block(config: ModelConfig, *, drop_path_rate: float) -> Block:
    width, initial = config.embed_dim, config.layer_scale
    kind = Block if config.norm_order == "pre" else PostNormBlock
    return kind(
        norm1=_norm(config, width),
        attn=_attention(config),
        ls1=LayerScale(width, initial=initial) if initial else None,
        norm2=_norm(config, width),
        mlp=_mlp(config),
        ls2=LayerScale(width, initial=initial) if initial else None,
        drop_path=DropPath(drop_path_rate),
    )


def _attention(config: ModelConfig) -> Attention:
    width, inner = config.embed_dim, config.attn_dim
    head_dim = inner // config.num_heads
    kind = LocalityAttention if config.locality else Attention
    return kind(
        num_heads=config.num_heads,
        qkv=nn.Linear(width, 3 * inner, bias=config.qkv_bias)
        if config.key_bias or not config.qkv_bias
        else KeylessBiasLinear(width, inner),
        proj=Projection(inner, width, bias=config.proj_bias, drop_rate=config.proj_drop_rate),
        qk_norms=(_norm(config, head_dim), _norm(config, head_dim)) if config.qk_norm else None,
        gate=nn.Linear(width, inner) if config.attn_gate else None,
        attn_drop_rate=config.attn_drop_rate,
    )


def _mlp(config: ModelConfig) -> nn.Module:
    kind = GatedMlp if config.mlp == "gated" else Mlp
    return kind(
        embed_dim=config.embed_dim,
        hidden_dim=config.mlp_dim,
        act=_ACTIVATIONS[config.act](),
        bias=config.mlp_bias,
        proj_drop_rate=config.proj_drop_rate,
    )


def _norm(config: ModelConfig, width: int) -> nn.Module:
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(width, eps=config.norm_eps)


def _pool(config: ModelConfig) -> nn.Module:
    width, count = config.embed_dim, config.num_prefix_tokens
    match config.pool:
        case "token":
            return ClassTokenPool(2 if config.distill_token else 1)
        case "mean":
            return MeanPool(count)
        case "max":
            return MaxPool(count)
        case "token_mean":
            return TokenMeanPool(count)
        case "map":
            return AttentionPool(
                embed_dim=width,
                num_heads=config.num_heads,
                norm=_norm(config, width),
                mlp=_mlp(config),
                num_prefix_tokens=count,
            )
        case "sequence":
            return SequencePool(width, count)
