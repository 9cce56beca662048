"""`ModelConfig` -> VisionTransformer: every choice of a part is made here, once."""

import dataclasses
from collections.abc import Mapping
from typing import TypedDict

import torch
from torch import Tensor, nn

from vitreous.model.attention import Attention
from vitreous.model.config import ModelConfig
from vitreous.model.encoder import Block, Encoder
from vitreous.model.head import Head
from vitreous.model.init import initialise
from vitreous.model.mlp import Mlp
from vitreous.model.pool import ClassTokenPool, MeanPool
from vitreous.model.position import LearnedPosition, SinusoidalPosition, resize_grid
from vitreous.model.prefix import ClassToken
from vitreous.model.presets import config_for
from vitreous.model.residual import DropPath, drop_path_rates
from vitreous.model.tokenizer import Tokenizer
from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive


class Parts(TypedDict):
    """The six arguments of `VisionTransformer`."""

    tokenizer: nn.Module
    position: nn.Module
    prefix: nn.Module
    encoder: nn.Module
    pool: nn.Module
    head: nn.Module


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    drop_path_rate: float = 0.0,
    seed: int | None = None,
) -> VisionTransformer:
    """A freshly initialised model by name, e.g. `vit_small_patch16_224`.

    Args:
        name: `vit_{size}_patch{px}_{px}`, or shorter with `img_size` and `patch_size` given; sizes: `presets.SIZES`.
        num_classes: Logits; 0 returns features instead.
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


def resize_model(model: VisionTransformer, img_size: tuple[int, int]) -> VisionTransformer:
    """A copy for images of another size: learned positions are resampled, all else is the same.

    Args:
        model: Stays as it is.
        img_size: Height and width in px that the copy shall take.

    Raises:
        ConfigError: Patches do not tile that size.
    """
    config = dataclasses.replace(model.config, img_size=img_size)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if isinstance(model.position, LearnedPosition):
        state["position.grid"] = resize_grid(state["position.grid"], config.grid_size)
    return model_from_state(config, state).train(model.training)


def build_parts(config: ModelConfig) -> Parts:
    """The parts that a configuration asks for, not yet initialised by our rules."""
    return Parts(
        tokenizer=Tokenizer(
            patch_size=config.patch_size,
            in_chans=config.in_chans,
            embed_dim=config.embed_dim,
            img_size=config.img_size,
        ),
        position=_position(config),
        # Fixed sinusoids count patches; a class token beside them has no number, only itself.
        prefix=ClassToken(embed_dim=config.embed_dim, position=config.position == "learned")
        if config.pool == "token"
        else nn.Identity(),
        encoder=_encoder(config),
        pool=ClassTokenPool() if config.pool == "token" else MeanPool(),
        head=Head(embed_dim=config.embed_dim, num_classes=config.num_classes) if config.num_classes else nn.Identity(),
    )


def _skeleton(config: ModelConfig) -> VisionTransformer:
    # The meta device spares PyTorch's own initialisation, which `initialise` or loaded weights would overwrite.
    with torch.device("meta"):
        return VisionTransformer(config, **build_parts(config))


def _position(config: ModelConfig) -> nn.Module:
    match config.position:
        case "learned":
            return LearnedPosition(grid_size=config.grid_size, embed_dim=config.embed_dim)
        case "sinusoidal":
            return SinusoidalPosition(grid_size=config.grid_size, embed_dim=config.embed_dim)
        case "none":
            return nn.Identity()


def _encoder(config: ModelConfig) -> Encoder:
    rates = drop_path_rates(config.drop_path_rate, config.depth)
    return Encoder(
        [_block(config, drop_path_rate=rate) for rate in rates],
        norm=_norm(config),
        drop_rate=config.drop_rate,
    )


def _block(config: ModelConfig, *, drop_path_rate: float) -> Block:
    return Block(
        norm1=_norm(config),
        attn=Attention(
            embed_dim=config.embed_dim,
            num_heads=config.num_heads,
            qkv_bias=config.qkv_bias,
            attn_drop_rate=config.attn_drop_rate,
            proj_drop_rate=config.proj_drop_rate,
        ),
        norm2=_norm(config),
        mlp=Mlp(
            embed_dim=config.embed_dim,
            hidden_dim=config.mlp_dim,
            act=nn.GELU() if config.act == "gelu" else nn.ReLU(),
            proj_drop_rate=config.proj_drop_rate,
        ),
        drop_path=DropPath(drop_path_rate),
    )


def _norm(config: ModelConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
