"""User settings -> TrainRequest; times such as `10m` -> seconds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from vitreous.data.sources import Source
from vitreous.errors import ConfigError
from vitreous.paths import expanded
from vitreous.ranges import Interval, check_arguments
from vitreous.recipe import keys
from vitreous.training.folder.run_folder import SeriesFolder
from vitreous.wording import printable_value

_UNITS_S = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class TrainRequest:
    """What to train, as given on the command line or in Python.

    Attributes:
        data: Name of a data set, or path of a folder or table; None with `source`, `resume` or a recipe that names it.
        recipe: Name of a shipped recipe or path of a YAML file; None lets the planner choose.
        model: Model name such as `vit_micro` or `vit_small_patch16_224`; None lets the planner choose.
        values: Configuration by dotted key, as values or as text; overrides everything else.
        out: Folder to create for the run; None uses the next free one below `runs/`.
        resume: Folder of a run to continue; all other fields except `source` must then be empty.
        source: Opened data from Python, instead of `data`.
        folds: Number of cross-validation folds, each tested by its own run; 0 for a single split. See `series`.
        seeds: Number of runs that differ only by their seed; 0 for a single run.
        settled: Keys that the runs of a series take over from an earlier run.
    """

    data: str | None = None
    recipe: str | None = None
    model: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    out: Path | None = None
    resume: Path | None = None
    source: Source | None = None
    folds: Annotated[int, Interval("[0, 1000]", "5 is usual")] = 0
    seeds: Annotated[int, Interval("[0, 1000]", "3 to 5 is usual")] = 0
    settled: Mapping[str, object] = field(default_factory=dict)


def parse_budget(text: str | float) -> dict[str, float]:
    """Return the key that a budget sets: seconds for `90s`, `10m`, `2h`, `1h30m` or a number, epochs for `30ep`.

    Raises:
        ConfigError: Any other text, or a budget that is not above 0.
    """
    words = (text if isinstance(text, str) else printable_value(text)).strip().lower()
    found = dict[str, float]()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:ep|epochs?)", words):
        found = {"train.epochs": float(match[1])}
    elif re.fullmatch(r"\d+(?:\.\d+)?", words):
        found = {"train.budget_s": float(words)}
    elif re.fullmatch(r"(?:\d+(?:\.\d+)? ?[a-z]+ ?)+", words):
        parts = re.findall(r"(\d+(?:\.\d+)?) ?([a-z]+)", words)
        if all(unit in _UNITS_S for _, unit in parts):
            found = {"train.budget_s": sum(float(number) * _UNITS_S[unit] for number, unit in parts)}
    if not any(value > 0 for value in found.values()):
        raise ConfigError(
            f"budget={keys.shown(text)}: must be a time or a number of epochs above 0; e.g. 90s, 10m, 1h30m or 30ep"
        )
    return found


OPTION_KEYS = {
    "task": "data.task",
    "epochs": "train.epochs",
    "pretrained": "train.pretrained",
    "teacher": "objective.teacher",
    "weights": "train.pretrained_weights",
    "img_size": "data.img_size",
    "batch_size": "data.batch_size",
    "lr": "optim.lr",
    "device": "train.device",
    "precision": "train.precision",
    "seed": "train.seed",
    "overfit_one_batch": "train.overfit_one_batch",
}
"""Options of `vitreous train`, and arguments of `vitreous.train`, with the configuration key that each one sets."""


def with_options(
    request: TrainRequest, options: Mapping[str, object], budget: str | float | None = None
) -> TrainRequest:
    """Return the request with options turned into configuration keys and `~` expanded in its paths.

    `options` are values by option, of those in `OPTION_KEYS`; None for an option that was not given. The budget is a
    time or a number of epochs; see `parse_budget`.

    Raises:
        ConfigError: An invalid budget, or two different values for one key.
    """
    check_arguments(TrainRequest, {name: getattr(request, name) for name in ("recipe", "model", "folds", "seeds")})
    settings = [(OPTION_KEYS[name], name, value) for name, value in options.items() if value is not None]
    if budget is not None:
        settings += [(key, "budget", value) for key, value in parse_budget(budget).items()]
    values = _with_architecture(request.values)
    for key, name, value in settings:
        if key in values and keys.checked({key: values[key]}) != keys.checked({key: value}):
            first, second = keys.shown(values[key]), keys.shown(budget if name == "budget" else value)
            raise ConfigError(f"{key}={first}: {name}={second} sets the same key to another value; give only one")
        values[key] = value
    return replace(
        request,
        values=values,
        out=request.out and expanded(request.out),
        resume=request.resume and expanded(request.resume),
    )


def _with_architecture(values: Mapping[str, object]) -> dict[str, object]:
    """Gather the keys `architecture.…`, which describe the model in a file, in `train.pretrained_as`."""
    prefix, gathered = "architecture.", "train.pretrained_as"
    found = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    rest = {key: value for key, value in values.items() if not key.startswith(prefix)}
    if not found:
        return rest
    texts = [f"{name}={_text(value)}" for name, value in keys.architecture(found).items()]
    return rest | {gathered: " ".join([str(rest.get(gathered) or ""), *texts]).strip()}


def _text(value: object) -> str:
    if value is None:
        return "none"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def is_series(request: TrainRequest) -> bool:
    """Return True if the request is for several runs: with folds or seeds, or to resume the folder of a series."""
    resumes_series = request.resume is not None and SeriesFolder(request.resume).series.is_file()
    return bool(request.folds or request.seeds or resumes_series)
