"""A folder -> the files of a tiny DINOv2 model, as transformers writes them."""

import json
from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model


def tiny_dinov2(folder: Path) -> dict[str, bytes]:
    """Write a model of width 32 for images of 28 px, and return its files by name."""
    torch.manual_seed(9)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    statistics = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return {path.name: path.read_bytes() for path in folder.iterdir()}
