"""Shapes of a file's tensors -> what they say of the architecture, and what they leave open."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import SIZES, config_for
from vitreous.model.weights.table import Hints, Shapes


def count_blocks(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that `pattern`'s group finds in a name."""
    return 1 + max((int(found[1]) for name in shapes if (found := re.search(pattern, name))), default=-1)


def is_square(count: int) -> bool:
    """Whether so many patches fill a square grid."""
    return math.isqrt(max(count, 0)) ** 2 == count


def img_size_of(num_patches: int, patch_size: int, hints: Hints) -> tuple[int, int]:
    """What the user says, or the side of a square image of so many patches.

    Raises:
        ConfigError: The user says nothing, and the patches fill no square.
    """
    told = hints.architecture.get("img_size")
    side = side_of(num_patches) * patch_size if told is None else 0
    return told or (side, side)


def side_of(num_patches: int) -> int:
    """The side of a square grid.

    Raises:
        ConfigError: No whole number; the user has to say the image's size.
    """
    side = math.isqrt(max(num_patches, 0))
    if side**2 != num_patches:
        raise ConfigError(
            f"img_size=None: the file has {num_patches} positions, which fill no square grid; "
            "pass architecture={'img_size': (height, width)}"
        )
    return side


def heads_of(embed_dim: int, depth: int) -> int | None:
    """Heads of the published size of this width and depth, which no shape tells; None unless there is exactly one."""
    found = {size.num_heads for size in SIZES.values() if (size.embed_dim, size.depth) == (embed_dim, depth)}
    return found.pop() if len(found) == 1 else None


def check_keys(architecture: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for a key that ModelConfig does not have."""
    known = {item.name for item in dataclasses.fields(ModelConfig)}
    for key, got in architecture.items():
        if key not in known:
            raise UnknownNameError(f"architecture.{key}={got!r}: no such key; {nearest(key, known)}")


def resolve(values: Mapping[str, Any], hints: Hints) -> ModelConfig:
    """A configuration from what a file says and what the user adds; the user wins.

    Args:
        values: Fields of ModelConfig; `num_heads` may be absent.
        hints: The user's `architecture`, and name and size where the file leaves them open.

    Raises:
        ConfigError: The number of heads is open, or a value breaks a rule.
    """
    merged = {**values, **hints.architecture}
    if merged.get("img_size") is None:
        merged["img_size"] = hints.img_size
    if merged["img_size"] is None:
        raise ConfigError(
            "img_size=None: the file does not tell it, because its positions are computed; pass img_size in px"
        )
    if merged.get("num_heads") is None:
        merged["num_heads"] = (
            heads_of(merged["embed_dim"], merged["depth"]) if hints.name is None else _heads_by_name(hints.name, merged)
        )
    if merged["num_heads"] is None:
        raise ConfigError(
            f"num_heads=None: no shape tells it, and no published model has width {merged['embed_dim']} and depth "
            f"{merged['depth']}; pass the model's name, or architecture={{'num_heads': …}}"
        )
    return ModelConfig.from_dict(merged)


def _heads_by_name(name: str, values: Mapping[str, Any]) -> int:
    named = config_for(name, img_size=224, patch_size=16)  # any that fit: only its blocks are asked for
    size, found = (named.embed_dim, named.depth), (values["embed_dim"], values["depth"])
    if size != found:
        raise ConfigError(
            f"name={name}: is {size[0]} wide and {size[1]} blocks deep, the file {found[0]} and {found[1]}; "
            "pass another name, or architecture={'num_heads': …}"
        )
    return named.num_heads
