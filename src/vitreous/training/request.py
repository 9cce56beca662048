"""What a user may ask of a training -> TrainRequest; words such as `10m` -> seconds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vitreous.data.sources import Source
from vitreous.errors import ConfigError

_UNITS_S = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class TrainRequest:
    """A wish, as the command line or Python states it.

    Attributes:
        data: Name of a set, or path of a folder or table; None with `source`, `resume` or a recipe that names it.
        recipe: Name of a shipped recipe or path of a YAML file; None lets the planner choose.
        model: Such as `vit_micro` or `vit_small_patch16_224`; None lets the planner choose.
        values: Dotted keys, typed or as text; they override everything.
        out: Folder to make for the run; None takes the next free one below `runs/`.
        resume: Folder of a run to go on with; nothing else may then be asked, but `source`.
        source: Data that Python gave, opened; instead of `data`.
        folds: 0, or into how many folds to divide the images, and as many runs to train; see `series`.
        seeds: 0, or how many runs to train that differ by their seed alone.
        settled: Keys that the first run of a series decided and the others take over.
    """

    data: str | None = None
    recipe: str | None = None
    model: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    out: Path | None = None
    resume: Path | None = None
    source: Source | None = None
    folds: int = 0
    seeds: int = 0
    settled: Mapping[str, object] = field(default_factory=dict)


def parse_budget(text: str | float) -> dict[str, float]:
    """Turn `90s`, `10m`, `2h`, `1h30m`, a number of seconds, or `30ep` into the key that it sets.

    Raises:
        ConfigError: Anything else, or nothing above zero.
    """
    words = str(text).strip().lower()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:ep|epochs?)", words):
        found = {"train.epochs": float(match[1])}
    elif re.fullmatch(r"\d+(?:\.\d+)?", words):
        found = {"train.budget_s": float(words)}
    elif re.fullmatch(r"(?:\d+(?:\.\d+)? ?[a-z]+ ?)+", words):
        parts = re.findall(r"(\d+(?:\.\d+)?) ?([a-z]+)", words)
        if any(unit not in _UNITS_S for _, unit in parts):
            raise ConfigError(_budget_rule(text))
        found = {"train.budget_s": sum(float(number) * _UNITS_S[unit] for number, unit in parts)}
    else:
        raise ConfigError(_budget_rule(text))
    if not all(value > 0 for value in found.values()):
        raise ConfigError(_budget_rule(text))
    return found


def _budget_rule(text: object) -> str:
    return f"budget={text}: must be a time or a number of epochs above 0; e.g. 90s, 10m, 1h30m or 30ep"
