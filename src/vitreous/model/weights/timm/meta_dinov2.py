"""Tensor names of Meta's own DINOv2, without and with registers <-> ours."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import write_only
from vitreous.model.weights.table import BATCHED, Format, Hints, Row, Shapes, learned_positions, row
from vitreous.model.weights.timm.config import read_config as read_timm_config
from vitreous.model.weights.timm.names import CHUNKS, PARTS
from vitreous.model.weights.timm.names import rows as timm_rows

_HEAD_WIDTH = 64
_GATED = ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2."))
"""Layers of a gated MLP: their name, timm's name."""
ALLOWED: dict[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(("patch_bias", "qkv_bias", "proj_bias", "mlp_bias"), (True, False)),
    **dict.fromkeys(("num_registers", "act")),
    "layer_scale": (0.0, 1e-5),
    "mlp": ("plain", "gated"),
}
_MARKS = frozenset(("mask_token", "register_tokens"))
"""Tensors that distinguish these files from those of timm."""


def read_config(shapes: Shapes, hints: Hints) -> ModelConfig:
    """Read the configuration from the shapes, as for a file of timm, from which it differs in names and positions."""
    width, registers = shapes["patch_embed.proj.weight"][0], shapes.get("register_tokens", (1, 0))[1]
    named = {translated(name, _GATED): shape for name, shape in shapes.items()}
    if registers:
        # timm's table has a row for each register or for no prefix token; theirs has one for the class token only.
        batch, rows, _ = shapes["pos_embed"]
        named |= {"reg_token": shapes["register_tokens"], "pos_embed": (batch, rows + registers, width)}
    known: dict[str, Any] = {
        "prefix_position": "class",
        # Models with registers give `interpolate` the new size, the others a scale factor.
        "position_resize": "timm" if registers else "dinov2",
        "dynamic_img_size": True,
    } | ({} if hints.name or width % _HEAD_WIDTH else {"num_heads": width // _HEAD_WIDTH})
    return read_timm_config(named, replace(hints, architecture=known | dict(hints.architecture)))


def rows(config: ModelConfig) -> list[Row]:
    """Build the table of tensor names."""
    table = [learned_positions(config, "pos_embed"), write_only("mask_token", lambda: torch.zeros(1, config.embed_dim))]
    table += [row("prefix.registers", "register_tokens", BATCHED)] if config.num_registers else []
    swaps = [(timm, meta) for meta, timm in _GATED] if config.mlp == "gated" else []
    for item in timm_rows(config):
        if not {"pos_embed", "reg_token"} & set(item.theirs):
            table.append(replace(item, theirs=tuple(translated(name, swaps) for name in item.theirs)))
    return table


def translated(name: str, swaps: Iterable[tuple[str, str]]) -> str:
    """Replace the parts of a name: (old, new)."""
    for old, new in swaps:
        name = name.replace(old, new)
    return name


def refuses(config: ModelConfig) -> list[str]:
    """List the choices that their code does not allow together."""
    act = "silu" if config.mlp == "gated" else "gelu"
    return [] if config.act == act else [f"model.act={config.act} with model.mlp={config.mlp}"]


META_DINOV2 = Format(
    name="dinov2",
    recognizes=lambda names: {"patch_embed.proj.weight", "pos_embed"} <= names and bool(names & _MARKS),
    # Masked autoencoders under timm's names have a mask token of three axes.
    fits=lambda shapes: len(shapes.get("mask_token", (1, 1))) == 2,
    read_config=read_config,
    rows=rows,
    allowed=ALLOWED,
    refuses=refuses,
    renames=(CHUNKS,),
    skipped={r"^mask_token$": "replaces hidden patches in pre-training"},
    parts=PARTS | {"register_tokens"},
    assumed=("num_heads", "img_size"),
)
"""Source: facebookresearch/dinov2, `vision_transformer.py`. Its models without registers resize positions by the scale
factor (patches + 0.1) / positions."""
