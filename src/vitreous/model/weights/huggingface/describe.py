"""A `ModelConfig` -> the `config.json` by which transformers opens the weights beside it."""

import json
from collections.abc import Mapping
from typing import Any

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.settings import ACTS

_WORDS = {ours: theirs for theirs, ours in reversed(ACTS.items())}


def describe(config: ModelConfig, architecture: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The file by its name.

    Args:
        config: Of the model; its classes get transformers' own labels for classes without names.
        architecture: The class that opens it.
        values: What that class's configuration holds, `model_type` included.
    """
    names = [f"LABEL_{number}" for number in range(config.num_classes)]
    labels = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    text = json.dumps({"architectures": [architecture], **values, **labels}, indent=2)
    return {"config.json": text + "\n"}


def sizes(config: ModelConfig) -> dict[str, Any]:
    """What all families describe alike."""
    height, width = config.img_size
    return {
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch_size,
        "num_channels": config.in_chans,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "hidden_act": _WORDS[config.act],
        "layer_norm_eps": float(config.norm_eps),  # their class refuses a whole number
    }


def rates(config: ModelConfig) -> dict[str, Any]:
    """Dropout, where the configuration has one number for the sequence and the branches."""
    return {"hidden_dropout_prob": config.proj_drop_rate, "attention_probs_dropout_prob": config.attn_drop_rate}


def unless_square(config: ModelConfig) -> list[str]:
    """Refuses height and width that differ, for classes that compute with one side."""
    return [] if config.img_size[0] == config.img_size[1] else [f"model.img_size={config.img_size}"]
