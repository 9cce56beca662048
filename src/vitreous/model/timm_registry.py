"""Names of this project -> models that `timm.create_model` builds."""

import importlib
from collections.abc import Callable
from typing import Any

from vitreous.errors import ConfigError, MissingDependencyError
from vitreous.model.build import create_model
from vitreous.model.config.presets import SIZES, config_for
from vitreous.model.config.published import PUBLISHED, TIMM_POOLS
from vitreous.model.vit import VisionTransformer

PREFIX = "vitreous_"

_ABOUT_WEIGHTS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def register() -> list[str]:
    """Register with timm every published model and every size of this project, as `vitreous_` and the name.

    The models have new weights and timm's interface: `forward_features`, `forward_intermediates`, `reset_classifier`
    and so on. `timm.create_model` passes on every field of `ModelConfig`, and `global_pool`.

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
    """Return the function that timm calls with the arguments of its user."""

    def make(pretrained: bool = False, **arguments: Any) -> VisionTransformer:
        if pretrained:
            raise ConfigError(
                f"pretrained=True: {PREFIX}{name} has no weights of its own; open a file of them with "
                "vitreous.load_model, timm's included"
            )
        fields = {key: value for key, value in arguments.items() if key not in _ABOUT_WEIGHTS and value is not None}
        if not fields.get("drop_rate", True):
            del fields["drop_rate"]  # timm passes its default of 0
        if pool := fields.pop("global_pool", None):
            # timm keeps the class token when it changes the pool.
            has_class_token = config_for(name).has_class_token
            fields |= {"pool": TIMM_POOLS.get(pool, pool), "class_token": has_class_token}
        return create_model(name, **fields)

    # timm registers a function by its name and by its module's name.
    make.__name__ = make.__qualname__ = PREFIX + name
    make.__module__ = __name__
    return make
