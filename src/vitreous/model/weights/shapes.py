"""Tensor shapes, hints from the user -> ModelConfig."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from vitreous.errors import ConfigError, OpenQuestionError, UnknownNameError, nearest
from vitreous.model.config.divisibility import divisors
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import SIZES, config_for
from vitreous.model.weights.table import Hints, Shapes


def count_blocks(shapes: Shapes, pattern: str) -> int:
    """Count blocks: one more than the largest number that the group of `pattern` matches in a name."""
    return 1 + max((int(found[1]) for name in shapes if (found := re.search(pattern, name))), default=-1)


def is_square(count: int) -> bool:
    """Return True if this number of patches fills a square grid."""
    return math.isqrt(max(count, 0)) ** 2 == count


def img_size_of(num_patches: int, patch_size: int, hints: Hints) -> tuple[int, int]:
    """Return the height and width of images in px: the size that the user gives, or else a square of all patches.

    Raises:
        OpenQuestionError: The user gives no size, and the patches do not fill a square.
    """
    given = hints.architecture.get("img_size")
    side = side_of(num_patches, patch_size) * patch_size if given is None else 0
    return given or (side, side)


def side_of(num_patches: int, patch_size: int) -> int:
    """Return the side of a square grid of patches. Raises OpenQuestionError if they do not fill a square."""
    side = math.isqrt(max(num_patches, 0))
    if side**2 != num_patches:
        rows, columns = side_by_side(max(num_patches, 1))
        size = (rows * patch_size, columns * patch_size)
        raise OpenQuestionError(
            f"img_size=None: the {num_patches:,} positions of the file do not fill a square grid; "
            + f"pass {way_out('img_size', size, 'height x width')}",
            "img_size",
            size,
        )
    return side


def side_by_side(count: int, *, square: bool = True) -> tuple[int, int]:
    """Return the rows and columns of the grid of `count` patches that is nearest to a square, or is not a square."""
    least = math.isqrt(count)
    rows = next(
        rows for rows in range(least, 0, -1) if count % rows == 0 and (square or rows * rows != count or rows == 1)
    )
    return rows, count // rows


def way_out(key: str, value: object, meaning: str = "") -> str:
    """Return the end of a message that asks for a field of ModelConfig, with an example."""
    explained = f" ({meaning})" if meaning else ""
    return f"architecture={{{key!r}: {value!r}}}, or --architecture.{key} {shown(value)}{explained}"


def shown(value: object) -> str:
    """Return a value as it is written on the command line."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def heads_of(embed_dim: int, depth: int) -> int | None:
    """Return the number of heads of published models with this width and depth; None unless it is unique."""
    found = {size.num_heads for size in SIZES.values() if (size.embed_dim, size.depth) == (embed_dim, depth)}
    return found.pop() if len(found) == 1 else None


def usual_heads(embed_dim: int) -> int:
    """Return a possible number of heads, about 64 wide, as an example."""
    return next(heads for heads in range(max(1, embed_dim // 64), 0, -1) if embed_dim % heads == 0)


def check_keys(architecture: Mapping[str, Any]) -> None:
    """Raise UnknownNameError for a key that is not a field of ModelConfig."""
    known = {item.name for item in dataclasses.fields(ModelConfig)}
    for key, got in architecture.items():
        if key not in known:
            raise UnknownNameError(f"architecture.{key}={got!r}: no such key; {nearest(key, known)}")


def resolve(values: Mapping[str, Any], hints: Hints) -> ModelConfig:
    """Combine what a file says and what the user gives into a configuration; the user wins.

    `num_heads` may be missing among the values. Name and image size of the hints are for what the file leaves open.

    Raises:
        ConfigError: The number of heads or the image size is unknown, or a value breaks a rule.
    """
    merged = {**values, **hints.architecture}
    has_class_token = values.get("pool", "token") in ("token", "token_mean")
    if "pool" in hints.architecture and has_class_token and merged.get("class_token") is None:
        merged["class_token"] = True  # the file has it, whatever the pool of the user reads
    if merged.get("img_size") is None:
        merged["img_size"] = hints.img_size
    if merged["img_size"] is None:
        usual = 224 if merged["patch_size"] in divisors(224) else 14 * merged["patch_size"]
        raise OpenQuestionError(
            "img_size=None: not known from the file, because its positions are computed; "
            + f"pass {way_out('img_size', (usual, usual), 'height x width')}",
            "img_size",
            (usual, usual),
        )
    if merged.get("num_heads") is None:
        merged["num_heads"] = (
            heads_of(merged["embed_dim"], merged["depth"]) if hints.name is None else _heads_by_name(hints.name, merged)
        )
    if merged["num_heads"] is None:
        usual = usual_heads(merged["embed_dim"])
        raise OpenQuestionError(
            f"num_heads=None: not known from the shapes, and no published model has width {merged['embed_dim']} and "
            f"depth {merged['depth']}; pass the model's name, or {way_out('num_heads', usual)}",
            "num_heads",
            1,
        )
    return ModelConfig.from_dict(merged)


def _heads_by_name(name: str, values: Mapping[str, Any]) -> int:
    named = config_for(name, img_size=224, patch_size=16)  # any valid sizes: only the blocks matter here
    size, found = (named.embed_dim, named.depth), (values["embed_dim"], values["depth"])
    if size != found:
        raise ConfigError(
            f"name={name}: has width {size[0]} and depth {size[1]}, but the file has {found[0]} and {found[1]}; "
            "pass another name, or " + way_out("num_heads", usual_heads(found[0]))
        )
    return named.num_heads
