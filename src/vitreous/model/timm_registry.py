"""Our names -> models that `timm.create_model` makes."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from vitreous.errors import ConfigError, MissingDependencyError, UnknownNameError, nearest
from vitreous.model.build import build_model
from vitreous.model.config.presets import SIZES, config_for
from vitreous.model.config.published import PUBLISHED, TIMM_POOLS
from vitreous.model.vit import VisionTransformer

PREFIX = "vitreous_"

_NAMED = ("num_classes", "in_chans", "img_size", "patch_size", "drop_path_rate")
_FIELDS = {
    # timm's word -> our field, where the name of the model says nothing of it.
    "pos_drop_rate": "pos_drop_rate",
    "patch_drop_rate": "patch_drop_rate",
    "proj_drop_rate": "proj_drop_rate",
    "attn_drop_rate": "attn_drop_rate",
    "dynamic_img_size": "dynamic_img_size",
    "global_pool": "pool",
}
_FOR_WEIGHTS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def register() -> list[str]:
    """Make timm know every published model, and all our sizes with 16 px patches, under `vitreous_` and the name.

    The models are ours, fresh, and have timm's interface: `forward_features`, `forward_intermediates`,
    `reset_classifier` and so on. `timm.create_model` passes on the number of classes, sizes, rates and `global_pool`.

    Returns:
        The names, e.g. `vitreous_vit_small_patch16_224`. Registering again changes nothing.

    Raises:
        MissingDependencyError: timm is not installed.

    Example:
        >>> register()                                                                            # doctest: +SKIP
        >>> model = timm.create_model("vitreous_vit_small_patch16_224", num_classes=5)            # doctest: +SKIP
    """
    try:
        registry = importlib.import_module("timm.models")
    except ImportError as error:
        raise MissingDependencyError("timm=None: is not installed, and so has no registry; pip install timm") from error
    names = list(dict.fromkeys([*(f"vit_{size}_patch16_224" for size in SIZES), *PUBLISHED]))
    for name in names:
        if not registry.is_model(PREFIX + name):
            registry.register_model(_entrypoint(name))
    return [PREFIX + name for name in names]


def _entrypoint(name: str) -> Callable[..., VisionTransformer]:
    """The function that timm calls with whatever its user gave."""

    def make(pretrained: bool = False, **arguments: Any) -> VisionTransformer:
        if pretrained:
            raise ConfigError(
                f"pretrained=True: {PREFIX}{name} has no weights of its own; open a file of them with "
                "vitreous.load_model, timm's included"
            )
        given = {key: value for key, value in arguments.items() if key not in _FOR_WEIGHTS and value is not None}
        if given.pop("drop_rate", 0):
            raise ConfigError(
                f"drop_rate={arguments['drop_rate']}: would be dropout before the head, which these models have not; "
                "use drop_path_rate or proj_drop_rate"
            )
        for key, value in given.items():
            known = (*_NAMED, *_FIELDS)
            if key not in known:
                raise UnknownNameError(f"{key}={value!r}: no such argument of {PREFIX}{name}; {nearest(key, known)}")
        config = config_for(name, **{key: given[key] for key in _NAMED if key in given})
        changes = {field: given[key] for key, field in _FIELDS.items() if key in given}
        if "pool" in changes:
            changes |= {"pool": TIMM_POOLS.get(changes["pool"], changes["pool"]), "class_token": config.has_class_token}
        return build_model(dataclasses.replace(config, **changes))

    # timm registers a function by its name and its module's.
    make.__name__ = make.__qualname__ = PREFIX + name
    make.__module__ = __name__
    return make
