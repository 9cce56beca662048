"""ModelConfig -> the parts of a VisionTransformer: the only file that chooses them."""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypedDict

from torch import nn

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.attention import Attention, KeylessBiasLinear, LocalityAttention
from vitreous.model.parts.embedding import LearnedPosition, Prefix
from vitreous.model.parts.encoder import (
    Block,
    DropPath,
    Encoder,
    GatedMlp,
    LayerScale,
    Mlp,
    PostNormBlock,
    QuickGELU,
    drop_path_rates,
)
from vitreous.model.parts.fixed_position import NoPosition, SinCosPosition, SinusoidalPosition
from vitreous.model.parts.head import DistilledHead
from vitreous.model.parts.patch_drop import PatchDrop
from vitreous.model.parts.pool import AttentionPool, ClassTokenPool, MaxPool, MeanPool, SequencePool, TokenMeanPool
from vitreous.model.parts.relative_bias import RelativeBias
from vitreous.model.parts.rotary import MixedRotaryPosition, RotaryPosition
from vitreous.model.parts.stem import CompactStem, ConvStem
from vitreous.model.parts.tokenizer import ImageTokenizer, NormedTokenizer, ShiftedTokenizer, Tokenizer

AnyRelation = RotaryPosition | MixedRotaryPosition | RelativeBias

_STEMS: dict[str, Callable[..., ImageTokenizer]] = {
    "linear": Tokenizer, "shifted": ShiftedTokenizer, "normed": NormedTokenizer, "conv": ConvStem, "cct": CompactStem,
}  # fmt: skip
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU, "gelu_tanh": partial(nn.GELU, approximate="tanh"), "quick_gelu": QuickGELU, "relu": nn.ReLU,
    "silu": nn.SiLU,
}  # fmt: skip


class Parts(TypedDict):
    """The arguments of `VisionTransformer`."""

    tokenizer: ImageTokenizer
    patch_norm: nn.Module
    position: nn.Module
    patch_drop: nn.Module
    prefix: nn.Module
    relation: AnyRelation | None
    encoder: Encoder
    pool: nn.Module
    fc_norm: nn.Module
    head: nn.Module


def build_parts(config: ModelConfig) -> Parts:
    """Build the parts of a model. Their weights are not drawn yet; `init.initialize` does that."""
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
            # With fixed or no positions, prefix tokens get no positional embedding.
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
    """Build the pool, from tokens to features, and the head, from features to logits (the identity for 0 classes)."""
    width, num_classes = config.num_features, config.num_classes
    if not num_classes:
        return _pool(config), nn.Identity()
    if config.distill_token:
        return _pool(config), DistilledHead(num_features=width, num_classes=num_classes)
    return _pool(config), nn.Linear(width, num_classes)


def _tokenizer(config: ModelConfig) -> ImageTokenizer:
    stem = partial(ConvStem, ratio=config.stem_ratio) if config.stem == "conv" else _STEMS[config.stem]
    return stem(
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
        pos_drop_rate=config.pos_drop_rate,
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
        proj=nn.Linear(inner, width, bias=config.proj_bias),
        qk_norms=(_norm(config, head_dim), _norm(config, head_dim)) if config.qk_norm else None,
        gate=nn.Linear(width, inner) if config.attn_gate else None,
        attn_drop_rate=config.attn_drop_rate,
        proj_drop_rate=config.proj_drop_rate,
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
