"""A name or a `ModelConfig` -> VisionTransformer, with new or given weights."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.extensions import find_extension
from vitreous.model.build_parts import build_parts
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.init import initialize
from vitreous.model.vit import VisionTransformer
from vitreous.ranges import Interval, check_value, rule_of
from vitreous.seeding import derive
from vitreous.wording import printable_value

_TIMM_ARGUMENTS = {
    "pretrained": "names here come without weights; open a file, folder or hub name with vitreous.load_model",
    "global_pool": "timm's name; use pool='token', 'mean' (timm: avg), 'max', 'token_mean' or 'map'",
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
        name: A published name as in timm, e.g. `deit3_base_patch16_224`, or `vit_{size}_patch{px}_{px}` with a size of
            `presets.SIZES`, e.g. `vit_small_patch16_224`. The px may be left out if `patch_size` and `img_size` give
            them, e.g. `vit_small`.
        num_classes: Number of logits; 0 for a model that returns features. None keeps the number of the published
            model, usually 1000.
        in_chans: Channels of an image.
        img_size: Side, or height and width, in px; takes precedence over the name.
        patch_size: Side of a patch in px; takes precedence over the name.
        seed: Makes the weights reproducible; None draws them from torch's global generator.
        **fields: Any other field of `ModelConfig`, e.g. `qk_norm=True`, `drop_path_rate=0.1`, `rotary="axial"`.

    Raises:
        UnknownNameError: The model or the field does not exist; the message suggests the nearest name.
        ConfigError: A size is missing, or a value breaks a rule.

    Example:
        >>> from vitreous.model import create_model
        >>> model = create_model("vit_tiny_patch16_224", num_classes=5, qk_norm=True)
        >>> model.config.qk_norm
        True
    """
    config = config_for(name, num_classes=num_classes, in_chans=in_chans, img_size=img_size, patch_size=patch_size)
    check_fields(fields)
    check_value("seed", seed, rule_of(Annotated[int, Interval("[0, 2**64)")] | None))
    generator = None if seed is None else torch.Generator().manual_seed(derive(seed, "init"))
    return build_model(dataclasses.replace(config, **fields), generator=generator)


def check_fields(fields: Mapping[str, Any]) -> None:
    """Check that every key is the name of a field of `ModelConfig`.

    Raises:
        ConfigError: A key is an argument of timm's `create_model`; the message names the replacement.
        UnknownNameError: The field does not exist; the message suggests the nearest name.
    """
    known = [field.name for field in dataclasses.fields(ModelConfig)]
    for key, value in fields.items():
        if key in known:
            continue
        if key in _TIMM_ARGUMENTS:
            raise ConfigError(f"{key}={printable_value(value)}: {_TIMM_ARGUMENTS[key]}")
        raise UnknownNameError(f"{key}={printable_value(value)}: no such field of ModelConfig; {nearest(key, known)}")


def build_model(
    config: ModelConfig, *, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> VisionTransformer:
    """Build a model with new weights, in training mode.

    Args:
        config: Architecture of the model.
        device: Device of the weights. They are drawn on the CPU first, so that they are the same on every device;
            `meta` draws and allocates nothing.
        generator: CPU generator that the weights are drawn from; None uses torch's global one.

    Raises:
        UnknownNameError: The extension of the model is not registered.
    """
    model = _skeleton(config)
    if torch.device(device).type == "meta":
        with torch.device("meta"):
            _extend(model)
        return model
    model.to_empty(device="cpu")
    initialize(model, scheme=config.init, generator=generator)
    _extend(model, generator)
    return model.to(device)


def model_from_state(config: ModelConfig, state: Mapping[str, Tensor]) -> VisionTransformer:
    """Build a model from given tensors, in their dtype and on their device; nothing is drawn or copied.

    Raises:
        RuntimeError: PyTorch finds names or shapes that do not fit. Files of weights are checked before this, in
            `weights`, with better messages.
    """
    first = next(iter(state.values()))
    model = _skeleton(config).to(first.dtype).to_empty(device=first.device)
    _extend(model)
    model.load_state_dict(dict(state), strict=True, assign=True)
    return model


def _skeleton(config: ModelConfig) -> VisionTransformer:
    # The meta device skips PyTorch's own initialization, which `initialize` or loaded weights would overwrite.
    with torch.device("meta"):
        return VisionTransformer(config, **build_parts(config))


def _extend(model: VisionTransformer, generator: torch.Generator | None = None) -> None:
    """Let the extension change the model, if it has one; with a generator, what it draws depends on the generator."""
    change = find_extension(model.config.extension).change_model
    if change is None:
        return
    with torch.random.fork_rng(devices=[], enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        change(model)
