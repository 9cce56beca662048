"""A name or a `ModelConfig` -> VisionTransformer, with new or given weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.build_parts import build_parts
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.init import initialize
from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive

_TIMM_ARGUMENTS = {
    "pretrained": "names here come without weights; open a file, folder or hub name with vitreous.load_model",
    "global_pool": "timm's name; use pool='token', 'mean' (timm: avg), 'max', 'token_mean' (timm: avgmax) or 'map'",
    "drop_rate": "timm's dropout before the head, which these models do not have; use drop_path_rate or proj_drop_rate",
}


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    seed: int | None = None,
    **fields: Any,
) -> VisionTransformer:
    """Build a model by name, with new weights, in training mode.

    Args:
        name: `vit_{size}_patch{px}_{px}` with a size of `presets.SIZES`, e.g. `vit_small_patch16_224`; shorter if
            `img_size` and `patch_size` are given; or a published name as in timm, e.g. `deit3_base_patch16_224`.
        num_classes: Number of logits; 0 returns features; None uses the number of the published model, usually 1000.
        in_chans: Channels of an image.
        img_size: Side, or height and width, in px; overrides the name.
        patch_size: Side of a patch in px; overrides the name.
        seed: Makes the weights reproducible; None draws them from torch's global generator.
        **fields: Any other field of `ModelConfig`, e.g. `qk_norm=True`, `drop_path_rate=0.1`, `rotary="axial"`.

    Raises:
        UnknownNameError: No such name or field; the nearest one is suggested.
        ConfigError: A size is missing, or a value breaks a rule.

    Example:
        >>> from vitreous.model import create_model
        >>> model = create_model("vit_tiny_patch16_224", num_classes=5, qk_norm=True)
        >>> model.config.qk_norm
        True
    """
    config = config_for(name, num_classes=num_classes, in_chans=in_chans, img_size=img_size, patch_size=patch_size)
    check_fields(fields)
    generator = None if seed is None else torch.Generator().manual_seed(derive(seed, "init"))
    return build_model(dataclasses.replace(config, **fields), generator=generator)


def check_fields(fields: Mapping[str, Any]) -> None:
    """Check that these are names of fields of `ModelConfig`.

    Raises:
        ConfigError: An argument of timm's `create_model`; the message names its replacement.
        UnknownNameError: No such field; the nearest one is suggested.
    """
    known = [field.name for field in dataclasses.fields(ModelConfig)]
    for key, value in fields.items():
        if key in known:
            continue
        if key in _TIMM_ARGUMENTS:
            raise ConfigError(f"{key}={value!r}: {_TIMM_ARGUMENTS[key]}")
        raise UnknownNameError(f"{key}={value!r}: no such field of ModelConfig; {nearest(key, known)}")


def build_model(
    config: ModelConfig, *, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> VisionTransformer:
    """Build a model with new weights, in training mode.

    Args:
        config: What to build.
        device: Device of the weights. They are drawn on the CPU first, so that they are the same on every device;
            `meta` draws and allocates nothing.
        generator: CPU generator that the weights are drawn from; None takes torch's global one.
    """
    model = _skeleton(config)
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device="cpu")
    initialize(model, scheme=config.init, generator=generator)
    return model.to(device)


def model_from_state(config: ModelConfig, state: Mapping[str, Tensor]) -> VisionTransformer:
    """Build a model that holds exactly these tensors, in their dtype and on their device; nothing is drawn or copied.

    Args:
        config: What to build.
        state: Every parameter by name, of the right shape.

    Raises:
        RuntimeError: From PyTorch, for names or shapes that do not fit; `weights` checks and explains them before.
    """
    first = next(iter(state.values()))
    model = _skeleton(config).to(first.dtype).to_empty(device=first.device)
    model.load_state_dict(dict(state), strict=True, assign=True)
    return model


def _skeleton(config: ModelConfig) -> VisionTransformer:
    # The meta device skips PyTorch's own initialization, which `initialize` or loaded weights would overwrite.
    with torch.device("meta"):
        return VisionTransformer(config, **build_parts(config))
