"""ModelConfig -> the `config.json` that transformers needs to open the weights."""

import json
from collections.abc import Mapping
from typing import Any

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.settings import ACTS

_ACT_NAMES = {ours: theirs for theirs, ours in reversed(ACTS.items())}


def describe(config: ModelConfig, architecture: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of `config.json`, by file name.

    Classes get the labels that transformers gives to classes without names. `architecture` is the class of transformers
    that opens the weights, and `values` are the fields of its configuration, including `model_type`.
    """
    names = [f"LABEL_{number}" for number in range(config.num_classes)]
    labels = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    text = json.dumps({"architectures": [architecture], **values, **labels}, indent=2)
    return {"config.json": text + "\n"}


def sizes(config: ModelConfig) -> dict[str, Any]:
    """Return the fields that all families share."""
    height, width = config.img_size
    return {
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch_size,
        "num_channels": config.in_chans,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "hidden_act": _ACT_NAMES[config.act],
        "layer_norm_eps": float(config.norm_eps),  # their class rejects an int
    }


def rates(config: ModelConfig) -> dict[str, Any]:
    """Return the dropout fields of families that have one rate for positions and branches."""
    return {"hidden_dropout_prob": config.proj_drop_rate, "attention_probs_dropout_prob": config.attn_drop_rate}


def refuse_unless_square(config: ModelConfig) -> list[str]:
    """Reject images that are not square, for classes that support only one side length."""
    return [] if config.img_size[0] == config.img_size[1] else [f"model.img_size={config.img_size}"]
