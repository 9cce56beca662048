"""Shapes under timm's names, and a model's name -> `ModelConfig`."""

import math
from collections.abc import Mapping
from typing import Any

from vitreous.errors import ConfigError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.weights.shapes import count_blocks, resolve, side_of
from vitreous.model.weights.table import Hints, Shapes

_POOLS = {"token": "token", "avg": "mean", "max": "max", "map": "map"}


def read_config(shapes: Shapes, hints: Hints) -> ModelConfig:
    """What the name says, in a size that the shapes say; without a name, all that shapes can say.

    Raises:
        UnknownNameError: No such name.
        ConfigError: Something is left open: heads, the image's size, or how a rotary model turns.
    """
    described = hints.settings.get("architecture")
    name = hints.name or (described if isinstance(described, str) else None)
    seen = _sizes(shapes)
    asked = hints.architecture.get("img_size")
    img_size = tuple(asked) if isinstance(asked, list | tuple) else _described_size(hints)
    base = _parts(shapes) if name is None else _named(name, seen, img_size)
    if "pos_embed" in shapes:
        given = img_size if asked is not None else None
        seen |= _places(
            shapes, seen["patch_size"], given, hints.architecture.get("prefix_position", base.get("prefix_position"))
        )
    elif name is None:
        seen["img_size"] = img_size
    values = {**base, **seen, **_pooling(shapes, hints, base)}
    reads_class = values["pool"] == "token"
    values["class_token"] = None if reads_class == ("cls_token" in shapes) else "cls_token" in shapes
    return resolve(values if name else _rotated(values, shapes, hints), hints)


def is_eva(names: frozenset[str]) -> bool:
    """Whether these names are of `eva.py`: scales, or keys without bias, in its own words, or no position at all."""
    marks = {"blocks.0.gamma_1", "blocks.0.attn.q_bias", "rope.freqs"}
    return "patch_embed.proj.weight" in names and (bool(names & marks) or "pos_embed" not in names)


def _sizes(shapes: Shapes) -> dict[str, Any]:
    """What a name leaves open, and shapes do not."""
    _, in_chans, patch_size, _ = shapes["patch_embed.proj.weight"]
    num_classes = shapes["head.weight"][0] if "head.weight" in shapes else 0
    return {"patch_size": patch_size, "in_chans": in_chans, "num_classes": num_classes}


def _named(name: str, seen: Mapping[str, Any], img_size: tuple[int, int] | None) -> dict[str, Any]:
    """The fields of a published model."""
    try:
        config = config_for(name, **seen, img_size=img_size)
    except ConfigError:
        # The name says no size, or one that the file's patches do not tile: any will do, the positions know better.
        config = config_for(name, **seen, img_size=16 * seen["patch_size"])
    return config.as_dict()


def _described_size(hints: Hints) -> tuple[int, int] | None:
    """The image's size in a timm `config.json`."""
    described = hints.settings.get("pretrained_cfg", hints.settings)
    found = described.get("input_size") if isinstance(described, Mapping) else None
    return (found[1], found[2]) if isinstance(found, list) and len(found) == 3 else None


def _parts(shapes: Shapes) -> dict[str, Any]:
    """All that the tensors of an unnamed file tell of the architecture; what none tells is as in most of the field."""
    width = shapes["patch_embed.proj.weight"][0]
    widened = sum(shapes.get(f"blocks.0.mlp.{name}.weight", (0,))[0] for name in ("fc1", "fc1_g", "fc1_x"))
    hidden = shapes.get("blocks.0.mlp.fc2.weight", (width, 4 * width))[1]
    gated, is_clip = widened == 2 * hidden, "norm_pre.weight" in shapes
    return {
        "embed_dim": width,
        "depth": count_blocks(shapes, r"^blocks\.(\d+)\."),
        "distill_token": "dist_token" in shapes,
        "num_registers": _num_registers(shapes),
        "position": "learned" if "pos_embed" in shapes else "none",
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "patch_norm": "patch_embed.norm.weight" in shapes,
        "embed_norm": is_clip,
        "norm_eps": 1e-5 if is_clip else 1e-6,
        "norm": "layer" if "blocks.0.norm1.bias" in shapes else "rms",
        "qkv_bias": bool({"blocks.0.attn.qkv.bias", "blocks.0.attn.q_bias"} & shapes.keys()),
        "key_bias": "blocks.0.attn.q_bias" not in shapes,
        "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
        "proj_bias": "blocks.0.attn.proj.bias" in shapes,
        "mlp": "gated" if gated else "plain",
        "act": "silu" if gated else "gelu",
        "mlp_ratio": hidden / width,
        "mlp_bias": "blocks.0.mlp.fc2.bias" in shapes,
        "layer_scale": 1e-5 if {"blocks.0.ls1.gamma", "blocks.0.gamma_1"} & shapes.keys() else 0.0,
    }


def _num_registers(shapes: Shapes) -> int:
    return shapes["reg_token"][1] if "reg_token" in shapes else 0


def _places(shapes: Shapes, patch_size: int, img_size: tuple[int, int] | None, expected: str | None) -> dict[str, Any]:
    """Image size and `prefix_position`: are the tokens before the patches among the positions, or not?

    Args:
        shapes: With `pos_embed`.
        patch_size: In px.
        img_size: What the user says; None for a square.
        expected: The `prefix_position` of a published model, or as the user says; None takes what leaves a square, and
            all where both do.
    """
    total, registers = shapes["pos_embed"][1], _num_registers(shapes)
    count = ("cls_token" in shapes) + ("dist_token" in shapes) + registers
    numbered = "all" if registers else "class"
    if img_size is not None:
        num_patches = (img_size[0] // patch_size) * (img_size[1] // patch_size)
        return {"img_size": img_size, "prefix_position": "none" if count and total == num_patches else numbered}
    choices = {numbered: total - count, **({"none": total} if count else {})}
    squares = [kind for kind, left in choices.items() if left > 0 and math.isqrt(left) ** 2 == left]
    kind = expected if expected in choices else (squares or [numbered])[0]
    side = side_of(choices[kind]) * patch_size
    return {"img_size": (side, side), "prefix_position": kind}


def _pooling(shapes: Shapes, hints: Hints, base: Mapping[str, Any]) -> dict[str, Any]:
    """The pool and the norms around it, which users of timm choose freely for any name."""
    told = _POOLS.get(str(hints.settings.get("global_pool")))
    has_norm = "fc_norm.weight" in shapes
    usual = base.get("pool", "token" if "cls_token" in shapes and not has_norm else "mean")
    pool = told or ("mean" if has_norm and usual not in ("mean", "max") else usual)
    if ("attn_pool.latent" in shapes) != (pool == "map"):
        pool = "map" if "attn_pool.latent" in shapes else "mean"
    return {"pool": pool, "final_norm": "norm.weight" in shapes, "fc_norm": has_norm}


def _rotated(values: dict[str, Any], shapes: Shapes, hints: Hints) -> dict[str, Any]:
    """The same, with the angles of an unnamed rotary model; what no tensor tells must be said."""
    if "rope.freqs" in shapes:
        return values | {"rotary": "mixed", "rotary_theta": 10.0, "num_heads": shapes["rope.freqs"][2]}
    if "rotary" in hints.architecture or not is_eva(frozenset(shapes)):
        return values
    raise ConfigError(
        "rotary=None: no tensor tells how queries and keys are turned; "
        "pass the model's name, or architecture={'rotary': …}"
    )
