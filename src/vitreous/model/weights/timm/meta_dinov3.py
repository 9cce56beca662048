"""Tensor names of Meta's own DINOv3 <-> ours."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import write_only
from vitreous.model.weights.huggingface.dinov3 import USUAL_PX
from vitreous.model.weights.table import Codec, Format, Hints, Row, Shapes, Tensors, row
from vitreous.model.weights.timm.config import read_config as read_timm_config
from vitreous.model.weights.timm.meta_dinov2 import ALLOWED, refuses, translated
from vitreous.model.weights.timm.names import PARTS, eva_rows

_PERIODS = "rope_embed.periods"
_NAMES = (("storage_tokens", "reg_token"), (".ls1.gamma", ".gamma_1"), (".ls2.gamma", ".gamma_2"))
_GATED = ((".mlp.w1.", ".mlp.fc1_g."), (".mlp.w2.", ".mlp.fc1_x."), (".mlp.w3.", ".mlp.fc2."))
"""Layers of a gated MLP: their name, timm's name."""


def read_config(shapes: Shapes, hints: Hints) -> ModelConfig:
    """Read the configuration from the shapes, as for a file of timm."""
    width, _, patch_size, _ = shapes["patch_embed.proj.weight"]
    usual = max(USUAL_PX // patch_size, 1) * patch_size
    known: dict[str, Any] = {
        "img_size": hints.img_size or (usual, usual),
        "num_heads": width // (4 * shapes[_PERIODS][0]),
        "rotary": "dinov3",
        "norm_eps": 1e-5,
        "dynamic_img_size": True,
    }
    if "blocks.0.attn.qkv.bias_mask" in shapes:
        known["key_bias"] = False
    named = {translated(name, (*_NAMES, *_GATED)): shape for name, shape in shapes.items()}
    return read_timm_config(named, replace(hints, architecture=known | dict(hints.architecture)))


def rows(config: ModelConfig) -> list[Row]:
    """Build the table of tensor names."""
    width = config.embed_dim
    powers = torch.linspace(0, 1, width // config.num_heads // 4 + 1)[:-1]
    table = [
        write_only("mask_token", lambda: torch.zeros(1, width)),
        write_only(_PERIODS, lambda: config.rotary_theta**powers),
    ]
    swaps = [(timm, meta) for meta, timm in (*_NAMES, *(_GATED if config.mlp == "gated" else ()))]
    for item in eva_rows(config):
        theirs = tuple(translated(name, swaps) for name in item.theirs)
        if len(theirs) == 2 and theirs[0].endswith("q_bias"):
            # The bias of the keys is in the file, but a mask sets it to zero.
            biases = theirs[0].replace("q_bias", "qkv.bias")
            table.append(row(item.ours, biases, _MASKED))
            table.append(write_only(f"{biases}_mask", lambda: _with_keys(torch.ones(2 * width))[0]))
        else:
            table.append(replace(item, theirs=theirs))
    return table


def _with_keys(ours: Tensor) -> Tensors:
    query, value = ours.chunk(2)
    return (torch.cat([query, torch.zeros_like(query), value]),)


_MASKED = Codec(read=lambda theirs: (torch.cat(theirs.chunk(3)[::2]),), write=_with_keys)

META_DINOV3 = Format(
    name="dinov3",
    recognizes=lambda names: {"patch_embed.proj.weight", _PERIODS} <= names,
    read_config=read_config,
    rows=rows,
    allowed=ALLOWED
    | {"position": ("none",), "rotary": ("dinov3",), "key_bias": (True, False), "norm_eps": (1e-5, 1e-6)},
    refuses=refuses,
    skipped={
        r"^mask_token$": "replaces hidden patches in pre-training",
        r"^local_cls_norm\.": "used only in pre-training",
        r"\.bias_mask$": "sets the bias of the keys to zero",
        r"^rope_embed\.periods$": "wavelengths of the rotary positions, which are computed",
    },
    parts=PARTS | {"storage_tokens", "cls_norm"},
    assumed=("norm_eps", "rotary_theta"),
)
"""Source: facebookresearch/dinov3, `vision_transformer.py`."""
