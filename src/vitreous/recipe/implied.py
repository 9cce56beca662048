"""Keys that the user sets, values that a recipe suggests -> other values where the two contradict each other.

What the user sets is never changed. A contradiction among keys that the user sets is left to the configuration, whose
errors then name only these keys.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vitreous.errors import ConfigError
from vitreous.model.config.divisibility import CONVOLUTIONS, divisors, is_power_of_two, patch_sizes
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import AUGMENTATION_KEYS
from vitreous.wording import show

_Values = Mapping[str, Any]
_FEWEST_PATCHES = 4
_MOST_PATCHES = 2_500
_NEAR = 2.0
"""Ratio of patch sizes up to which the image size is kept, if the user sets neither."""


def implied(values: _Values, asked: _Values) -> list[Choice]:
    """Return choices that replace values with which the keys of the user could not be combined.

    `values` has every key: the defaults, what the recipe suggests, and what the user sets. `asked` has those that the
    user sets.

    Raises:
        ConfigError: No patch size suits the image size that the user sets.
    """
    current, found = dict(values), []
    for rule in _RULES:
        for key, value, because in rule(current, asked):
            if key not in asked and current[key] != value:
                current[key] = value
                found.append(Choice(key, value, f"suits {because}, which you set"))
    return found


_Changes = Iterator[tuple[str, Any, str]]


def _loss(values: _Values, asked: _Values) -> _Changes:
    if asked.get("objective.bce_threshold") is not None:
        yield "objective.loss", "bce", "objective.bce_threshold"
    elif asked.get("objective.logit_adjustment"):
        yield "objective.loss", "cross_entropy", "objective.logit_adjustment"


def _teacher(values: _Values, asked: _Values) -> _Changes:
    """With a time budget, run the teacher once per image, unless more than its probabilities are learned."""
    is_soft = values["objective.distill"] == "soft" and values["objective.loss"] != "multilabel"
    learns_probabilities = is_soft and values["objective.bce_threshold"] is None
    if values["objective.teacher"] and values["train.budget_s"] and learns_probabilities:
        yield "objective.teacher_views", "fixed", "train.budget_s"


def _batch(values: _Values, asked: _Values) -> _Changes:
    repeats, batch_size = values["data.repeats"], values["data.batch_size"]
    yield "data.repeats", min(repeats, batch_size), "data.batch_size"
    if "data.repeats" in asked:
        yield "data.batch_size", max(repeats, batch_size), "data.repeats"


def _channels(values: _Values, asked: _Values) -> _Changes:
    numbers = asked.get("data.mean") or asked.get("data.std") or ()
    if {len(numbers), values["data.in_chans"]} == {1, 3}:
        yield "data.in_chans", len(numbers), "data.mean and data.std"


def _schedule(values: _Values, asked: _Values) -> _Changes:
    warmup, cooldown = values["optim.warmup_ratio"], values["optim.cooldown_ratio"]
    if values["optim.schedule"] == "wsd" and warmup + cooldown > 1:
        yield "optim.cooldown_ratio", 1 - warmup, "optim.warmup_ratio"
        yield "optim.warmup_ratio", 1 - cooldown, "optim.cooldown_ratio"


def _optimizer(values: _Values, asked: _Values) -> _Changes:
    if asked.get("train.parallel") == "fsdp":
        yield "optim.name", "adamw", "train.parallel=fsdp"


def _frozen(values: _Values, asked: _Values) -> _Changes:
    for key in ("train.freeze_blocks", "train.lora_rank"):
        if asked.get(key):
            yield "train.freeze", "none", key
    yield "model.depth", max(values["model.depth"], values["train.freeze_blocks"]), "train.freeze_blocks"
    if asked.get("train.reuse_frozen"):
        for key in (*AUGMENTATION_KEYS, "model.patch_drop_rate", "model.pos_drop_rate"):
            yield key, type(values[key])(0), "train.reuse_frozen"
        yield "data.flip", False, "train.reuse_frozen"
        yield "data.min_crop_area", 1.0, "train.reuse_frozen"


def _pool(values: _Values, asked: _Values) -> _Changes:
    learns_token = values["objective.teacher"] is not None and values["objective.distill"].startswith("token")
    if learns_token and asked.get("model.pool", "token") == "token" and asked.get("model.class_token") is not False:
        yield "model.distill_token", True, "objective.distill"
        yield "model.pool", "token", "objective.distill"
    if asked.get("model.distill_token"):
        yield "model.pool", "token", "model.distill_token"
    elif asked.get("model.class_token") is False and values["model.pool"].startswith("token"):
        yield "model.pool", "mean", "model.class_token"


def _width(values: _Values, asked: _Values) -> _Changes:
    """Let heads divide the width, and both suit rotary or fixed positions."""
    width, heads = values["model.embed_dim"], values["model.num_heads"]
    is_split = values["model.head_dim"] is None
    per_head = 4 if values["model.rotary"] != "none" and is_split else 1
    heads_factor = per_head * heads if is_split or values["model.pool"] == "map" else 1
    if values["model.position"].startswith("sincos2d") and width % 4 and "model.embed_dim" in asked:
        yield "model.position", "learned", "model.embed_dim"
    factor = math.lcm(heads_factor, 4 if values["model.position"].startswith("sincos2d") else 1)
    if "model.embed_dim" not in asked and width % factor:
        yield "model.embed_dim", max(1, round(width / factor)) * factor, "model.num_heads"
    elif width % heads_factor:
        # No number of heads suits a width that 4 does not divide; with one head, the error is about the width only.
        suitable = divisors(width // per_head) if width % per_head == 0 else [1]
        yield "model.num_heads", min(suitable, key=_distance_from(heads)), "model.embed_dim"


def _tiling(values: _Values, asked: _Values) -> _Changes:
    """Let patches tile the images, also those at the start of the run, with a side that the stem can make."""
    size, side, start = values["data.img_size"], values["model.patch_size"], values["train.start_img_size"]
    stem, near = values["model.stem"], _distance_from(side)
    cause = "train.start_img_size" if start else "model.stem" if "model.stem" in asked else "data.img_size"
    tiling = patch_sizes(stem, *size, *(start or ()))
    if "data.img_size" in asked:
        if "model.patch_size" not in asked:
            _check_tileable(size, tiling, values)
            yield "model.patch_size", min(tiling, key=near), cause
        return
    if "model.patch_size" in asked:
        cause = "model.patch_size"
    elif tiling and near(min(tiling, key=near)) <= math.log(_NEAR):
        side = min(tiling, key=near)
    else:
        is_made = is_power_of_two if stem in CONVOLUTIONS else bool
        sides = patch_sizes(stem, *start) if start else list(filter(is_made, range(1, 2 * side + 2)))
        side = min(sides, key=near, default=2)
    yield "model.patch_size", side, cause
    least = start or (side, side)
    tiled = (max(math.ceil(low / side), round(px / side)) * side for low, px in zip(least, size, strict=True))
    yield "data.img_size", tuple(tiled), cause


def _check_tileable(size: tuple[int, int], tiling: list[int], values: _Values) -> None:
    """Raise ConfigError unless one of the patch sizes in `tiling` cuts images of this size into a useful number."""
    counts = [(size[0] // side) * (size[1] // side) for side in tiling]
    if any(_FEWEST_PATCHES <= count <= _MOST_PATCHES for count in counts) or (counts and max(counts) < _MOST_PATCHES):
        return
    side, stem = max(1, round((size[0] * size[1] / 64) ** 0.5)), values["model.stem"]
    if stem in CONVOLUTIONS:
        side = 2 ** max(1, round(math.log2(side)))
    better, shown = show(tuple(max(1, round(px / side)) * side for px in size)), show(size)
    if start := values["train.start_img_size"]:
        raise ConfigError(
            f"train.start_img_size={show(start)}: has no patch size in common with data.img_size={shown}; use sizes of "
            "which one is half of the other"
        )
    if not counts:
        raise ConfigError(
            f"data.img_size={shown}: model.stem={stem} makes patches of 2, 4, 8, … px, and none of them tiles this "
            f"size; use {better}"
        )
    raise ConfigError(
        f"data.img_size={shown}: is tiled only by patches of {' or '.join(map(str, tiling))} px, which are "
        f"{' or '.join(f'{count:,}' for count in counts)} per image; use {better}, or set model.patch_size"
    )


def _distance_from(number: int) -> Callable[[int], float]:
    """Return the distance of another number by ratio, so that 8 is as near to 4 as to 16."""
    return lambda other: abs(math.log(other / number))


_RULES = (_loss, _teacher, _batch, _channels, _schedule, _optimizer, _frozen, _pool, _width, _tiling)
