"""Names of this project -> models that `timm.create_model` builds."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from vitreous.errors import ConfigError, MissingDependencyError
from vitreous.model.build import create_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import SIZES, config_for
from vitreous.model.config.published import PUBLISHED, TIMM_POOLS
from vitreous.model.parts.embedding import LearnedPosition, Prefix
from vitreous.model.parts.encoder import Block
from vitreous.model.parts.fixed_position import FixedTable
from vitreous.model.parts.pool import AttentionPool
from vitreous.model.parts.relative_bias import RelativeBias
from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.model.vit import VisionTransformer

PREFIX = "vitreous_"

default_cfgs: dict[str, dict[str, Any]] = {}
"""What timm knows of each model; `timm.models.register_model` reads it under this name."""
_UNTRACED = (ImageTokenizer, LearnedPosition, FixedTable, RelativeBias, Prefix, Block, AttentionPool)
"""Parts that are one node each in a graph of torch.fx, because their code depends on the size of images."""


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
        models = importlib.import_module("timm.models")
    except ImportError as error:
        raise MissingDependencyError("timm=None: is not installed, and so has no registry; pip install timm") from error
    names = list(dict.fromkeys([*(f"vit_{size}_patch16_224" for size in SIZES), *PUBLISHED]))
    for name in names:
        if not models.is_model(PREFIX + name):
            default_cfgs[PREFIX + name] = _described(config_for(name))
            models.register_model(_entrypoint(name, models))
    for part in _UNTRACED:
        models.register_notrace_module(part)
    return [PREFIX + name for name in names]


def _described(config: ModelConfig) -> dict[str, Any]:
    """Return what timm calls the default configuration of a model: its input, and the names of its ends."""
    heads = ("head.label", "head.teacher") if config.distill_token else "head"
    return {
        "input_size": (config.in_chans, *config.img_size),
        "fixed_input_size": not config.dynamic_img_size,
        "num_classes": config.num_classes,
        "crop_pct": 0.9,
        "first_conv": "tokenizer.proj",
        "classifier": heads,
    }


def _entrypoint(name: str, models: Any) -> Callable[..., nn.Module]:
    """Return the function that timm calls with the arguments of its user."""

    def make(pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained:
            raise ConfigError(
                f"pretrained=True: {PREFIX}{name} has no weights of its own; open a file of them with "
                "vitreous.load_model, timm's included"
            )
        features = {"out_indices": arguments.pop("out_indices", 3), "feature_cls": "getter"}
        return models.build_model_with_cfg(
            partial(_model, name), PREFIX + name, pretrained, feature_cfg=features, **arguments
        )

    # timm registers a function by its name and by its module's name.
    make.__name__ = make.__qualname__ = PREFIX + name
    make.__module__ = __name__
    return make


def _model(name: str, **arguments: Any) -> VisionTransformer:
    """Build a model from the arguments that timm passes on."""
    fields = {key: value for key, value in arguments.items() if value is not None}
    if not fields.get("drop_rate", True):
        del fields["drop_rate"]  # timm passes its default of 0
    if "global_pool" in fields:
        pool = fields.pop("global_pool")
        # timm keeps the class token when it changes the pool.
        has_class_token = config_for(name).has_class_token
        fields = {"class_token": has_class_token} | fields | {"pool": TIMM_POOLS.get(pool, pool)}
    return create_model(name, **fields)
