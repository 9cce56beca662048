"""Tensor names of transformers' SigLIP image tower <-> ours: with attention pooling, or with mean and classifier."""

from dataclasses import replace

import torch
from torch import Tensor

from vitreous.model.config.model_config import ModelConfig
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
from vitreous.model.weights.table import VECTOR, Codec, Format, Hints, Row, Shapes, Tensors, layer, row

_HEAD = "vision_model.head"
_MARKS = {POSITIONS, f"{NORM}.weight", "vision_model.embeddings.patch_embedding.bias"}
_CLASS = "vision_model.embeddings.class_embedding"


def _read(shapes: Shapes, hints: Hints, pool: str) -> ModelConfig:
    values = read_tower(shapes, hints, num_prefix_tokens=0, act="gelu_pytorch_tanh", eps=1e-6)
    return resolve(values | {"pool": pool}, hints)


def _rows(config: ModelConfig) -> list[Row]:
    table = tower_rows(config) + layer("encoder.norm", NORM)
    if config.pool == "map":
        table += [
            row("pool.probe", f"{_HEAD}.probe", VECTOR),
            row(["pool.q.weight", "pool.kv.weight"], f"{_HEAD}.attention.in_proj_weight", _SPLIT_QUERY),
            row(["pool.q.bias", "pool.kv.bias"], f"{_HEAD}.attention.in_proj_bias", _SPLIT_QUERY),
            *layer("pool.proj", f"{_HEAD}.attention.out_proj"),
            *layer("pool.norm", f"{_HEAD}.layernorm"),
            *layer("pool.mlp.fc1", f"{_HEAD}.mlp.fc1"),
            *layer("pool.mlp.fc2", f"{_HEAD}.mlp.fc2"),
        ]
    return table + (layer("head", "classifier") if config.num_classes else [])


def _split(stacked: Tensor) -> Tensors:
    third = len(stacked) // 3
    return stacked[:third], stacked[third:]


_SPLIT_QUERY = Codec(read=_split, write=lambda *parts: (torch.cat(parts),))


def _describe(config: ModelConfig) -> dict[str, str]:
    tower = {"model_type": "siglip_vision_model", **tower_settings(config), "vision_use_head": config.pool == "map"}
    if config.num_classes:
        return describe(config, "SiglipForImageClassification", {"model_type": "siglip", CONFIG: tower})
    return describe(config, "SiglipVisionModel", tower)


MAP = Format(
    name="transformers siglip",
    recognizes=lambda names: names >= {*_MARKS, f"{_HEAD}.probe"} and not names & {_CLASS, "classifier.weight"},
    read_config=lambda shapes, hints: _read(shapes, hints, "map"),
    rows=_rows,
    allowed={"pool": ("map",), "class_token": (None, False), "num_classes": (0,), "act": None, "norm_eps": None},
    refuses=refuse_unless_square,
    renames=RENAMES,
    skipped=SKIPPED,
    describe=_describe,
)
MEAN = replace(
    MAP,
    name="transformers siglip classifier",
    recognizes=lambda names: names >= _MARKS and _CLASS not in names,
    read_config=lambda shapes, hints: _read(shapes, hints, "mean"),
    allowed={"pool": ("mean",), "class_token": (None, False), "act": None, "norm_eps": None},
    skipped={**SKIPPED, rf"^{_HEAD}\.": "the attention pooling, which this classifier does not use"},
)

SIGLIP = (MAP, MEAN)
"""A tower without a head is read as a model with mean pooling."""
