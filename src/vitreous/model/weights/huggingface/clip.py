"""Tensor names of transformers' CLIP image tower <-> ours: bare, with a projection, or with a classifier."""

from dataclasses import replace

import torch
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import write_only
from vitreous.model.weights.huggingface.settings import describe, refuse_unless_square
from vitreous.model.weights.huggingface.tower import (
    CONFIG,
    NORM,
    POSITIONS,
    RENAMES,
    SKIPPED,
    read_tower,
    tower_rows,
    tower_settings,
)
from vitreous.model.weights.shapes import resolve
from vitreous.model.weights.table import Codec, Format, Hints, Row, Shapes, Tensors, layer, row

_CLASS = "vision_model.embeddings.class_embedding"
_PROJECTION = "visual_projection.weight"
_MARKS = {POSITIONS, _CLASS, "vision_model.pre_layrnorm.weight"}  # this misspelling is in all their files


def _read(shapes: Shapes, hints: Hints) -> ModelConfig:
    values = read_tower(shapes, hints, num_prefix_tokens=1, act="quick_gelu", eps=1e-5)
    if _PROJECTION in shapes:
        # The projection is the head, as in timm. Its "classes" are the dimensions of the space shared with text.
        values["num_classes"] = hints.settings.get("projection_dim", shapes[_PROJECTION][0])
    return resolve(values | {"patch_bias": False, "embed_norm": True}, hints)


def _read_classifier(shapes: Shapes, hints: Hints) -> ModelConfig:
    values = read_tower(shapes, hints, num_prefix_tokens=1, act="quick_gelu", eps=1e-5)
    values |= {"pool": "mean", "class_token": True, "final_norm": False}
    return resolve(values | {"patch_bias": False, "embed_norm": True}, hints)


def _rows(config: ModelConfig) -> list[Row]:
    table = [
        *tower_rows(config),
        row("prefix.class_token", _CLASS),
        *layer("encoder.norm_pre", "vision_model.pre_layrnorm"),
    ]
    if not config.final_norm:
        width = config.embed_dim
        return [
            *table,
            write_only(f"{NORM}.weight", lambda: torch.ones(width)),
            write_only(f"{NORM}.bias", lambda: torch.zeros(width)),
            *(layer("head", "classifier") if config.num_classes else []),
        ]
    table += layer("encoder.norm", NORM)
    return table + ([row(["head.weight", "head.bias"], _PROJECTION, WITHOUT_BIAS)] if config.num_classes else [])


def _write_projection(weight: Tensor, bias: Tensor) -> Tensors:
    if not bias.is_meta and bias.any():
        raise ConfigError(
            f"head.bias={bias.abs().max():.3g} (largest value): the projection of CLIP has no bias; use "
            "to=vitreous or to=timm, or set the bias to zero"
        )
    return (weight,)


WITHOUT_BIAS = Codec(read=lambda weight: (weight, weight.new_zeros(len(weight))), write=_write_projection)


def _describe(config: ModelConfig) -> dict[str, str]:
    tower = {"model_type": "clip_vision_model", **tower_settings(config)}
    if not config.final_norm:
        return describe(config, "CLIPForImageClassification", {"model_type": "clip", CONFIG: tower})
    if config.num_classes:
        return describe(config, "CLIPVisionModelWithProjection", {**tower, "projection_dim": config.num_classes})
    return describe(config, "CLIPVisionModel", tower)


TOWER = Format(
    name="transformers clip",
    recognizes=lambda names: names >= _MARKS,
    read_config=_read,
    rows=_rows,
    allowed={
        "patch_bias": (False,),
        "embed_norm": (True,),
        "class_token": (None, True),
        "prefix_position": ("class", "all"),
        "act": None,
        "norm_eps": None,
    },
    refuses=refuse_unless_square,
    renames=RENAMES,
    skipped=SKIPPED,
    describe=_describe,
)
CLASSIFIER = replace(
    TOWER,
    name="transformers clip classifier",
    recognizes=lambda names: names >= {*_MARKS, "classifier.weight"},
    read_config=_read_classifier,
    allowed={**TOWER.allowed, "pool": ("mean",), "class_token": (True,), "final_norm": (False,)},
    skipped={**SKIPPED, rf"^{NORM}\.": "a norm for the class token, which this classifier does not use"},
)

CLIP = (CLASSIFIER, TOWER)
