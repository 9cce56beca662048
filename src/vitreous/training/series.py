"""TrainRequest with folds or seeds -> a folder of runs that differ only in their fold or seed.

The planner decides for the first run, from the number and size of the images and the speed of the machine; the other
runs reuse its choices. Mirroring, and the choice between raw and averaged pretrained weights, are the exceptions: they
depend on labels, so each fold decides them from its own training images. Thus no test image influences the run that it
tests.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitreous import atomic
from vitreous.data.sources import full_name
from vitreous.errors import ConfigError, DamagedFileError, NotARunError, RunError
from vitreous.objective.config import uses_labels
from vitreous.recipe import keys
from vitreous.recipe.files import read_config, read_values
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.access import check_free, create_series_folder, exclusive
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.machine.signals import Interrupted
from vitreous.training.moved import folder_to_resume, is_moved, reopen_data, with_copy
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.training.weights.pretrained import full_source

_OWN_KEYS = ("data.source", "data.root", "data.fold", "data.mean", "data.std", "train.seed")
"""Keys that each run has for itself; mean and std are those of its training images."""
_DECIDED_BY_LABELS = ("data.flip", "train.pretrained_weights")
_WRITTEN = ("data", "recipe", "model", "values", "folds", "seeds", "settled")

MOST_RUNS = 1000
"""Maximum number of folds, and of seeds."""


@dataclass(frozen=True)
class Member:
    """One run of a series, in a folder such as `fold-0`, `seed-3` or `fold-0-seed-3`; without folds, it has no fold."""

    name: str
    fold: int | None
    seed: int


def members(request: TrainRequest) -> list[Member]:
    """Return the runs of a series: all folds with the first seed, then all folds with the next.

    Raises:
        ConfigError: Fewer than two folds or seeds, or over `MOST_RUNS`, or a key that the series sets itself.
    """
    for key, got in (("folds", request.folds), ("seeds", request.seeds)):
        if got != 0 and not 2 <= got <= MOST_RUNS:
            raise ConfigError(f"{key}={got}: must be from 2 to {MOST_RUNS:,}; use 5, or leave it out for a single run")
    loss = request.values.get("objective.loss", "mae" if request.recipe == "pretrain" else "cross_entropy")
    if (request.folds or request.seeds) and not uses_labels(str(loss)):
        raise ConfigError(
            f"objective.loss={loss}: has no accuracy that runs could be compared by; pretrain once, and use folds and "
            "seeds to train from there"
        )
    for key in ("data.num_folds", "data.fold"):
        if request.folds and key in request.values:
            raise ConfigError(f"{key}={request.values[key]}: is decided by folds={request.folds}; leave it out")
    first_seed = keys.checked(request.values).get("train.seed", 0)
    seeds = range(first_seed, first_seed + max(1, request.seeds))
    folds: list[int | None] = list(range(request.folds)) or [None]
    return [Member(_name(request, fold, seed), fold, seed) for seed in seeds for fold in folds]


def first_of(request: TrainRequest) -> TrainRequest:
    """Return the request of the first run of a series, or of a single run. Raise ConfigError as `members` does."""
    first = members(request)[0]
    return _member_request(request, first) if first.name else request


def run_series(
    request: TrainRequest,
    after: Callable[[RunFolder], None],
    listener: Listener = ignore,
    train: Callable[[TrainRequest, Listener], object] = run_training,
) -> SeriesFolder:
    """Train all runs of a series one after another, or resume an interrupted series.

    Complete runs are not repeated. An interrupted run continues from its last checkpoint, bit for bit. A budget in
    seconds is for all runs together, in equal shares; a number of epochs, and a budget in a recipe file, are per run.
    `after` is called with the folder of each complete run, in order, including runs that were complete before. The
    listener also receives `member` before each run.

    Raises:
        VitreousError: As in `run_training`, or a setting that a series cannot have.
        Interrupted: Ctrl-C or SIGTERM; `resume` continues the series.
    """
    is_new = request.resume is None
    folder, request = _begin(request) if is_new else _reopen(request, listener)
    with exclusive(folder.path, listener):
        _train_members(folder, request, after, listener, train, is_new=is_new)
    return folder


def _train_members(
    folder: SeriesFolder,
    request: TrainRequest,
    after: Callable[[RunFolder], None],
    listener: Listener,
    train: Callable[[TrainRequest, Listener], object],
    *,
    is_new: bool,
) -> None:
    todo = members(request)
    for number, member in enumerate(todo, start=1):
        run = RunFolder(folder.path / member.name)
        is_done = run.model.exists()
        listener("member", {"name": member.name, "number": number, "total": len(todo), "done": is_done})
        if not is_done:
            try:
                train(_start_or_resume(request, member, run, RunFolder(folder.path / todo[0].name)), listener)
            except Interrupted as stopped:
                raise Interrupted(
                    stopped.signal_number, folder.path, stopped.step, member.name, stopped.model
                ) from stopped
            except BaseException:
                if is_new and number == 1 and not run.path.exists():
                    folder.withdraw()  # wrong data or keys leave no folder behind
                raise
        after(run)


def read_series(folder: SeriesFolder) -> TrainRequest:
    """Read the request of a series. Raise NotARunError if there is none, DamagedFileError for an altered file."""
    try:
        written = json.loads(folder.series.read_text(encoding="utf-8"))
        request = TrainRequest(**{**written, "values": keys.renamed(written.get("values", {}))}, out=folder.path)
        members(request)
    except FileNotFoundError as error:
        raise NotARunError(f"series={folder.path}: has no {folder.series.name}; `--folds 5` makes one") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{folder.series}: was altered ({error}); restore it") from error
    return request


def _begin(request: TrainRequest) -> tuple[SeriesFolder, TrainRequest]:
    """Create the folder, copy the recipe file into it, and write the request with absolute paths."""
    if not members(request)[0].name:
        raise ConfigError(f"folds={request.folds}: is not a series without seeds; use 5, or train a single run")
    check_free(request.out)
    from_file: dict[str, Any] = {}
    if request.recipe is not None and Path(request.recipe).suffix in (".yaml", ".yml"):
        _, from_file = read_values(Path(request.recipe))
    values = keys.checked(request.values)
    values.setdefault("train.seed", from_file.get("train.seed", 0))
    data = request.data
    if data is None and request.source is None and "data.source" in from_file:
        data = from_file["data.source"]
        values |= {"data.root": from_file["data.root"]} if from_file.get("data.root") else {}
    for key in ("data.root", "data.corrections", "train.pretrained", "objective.teacher"):
        if values.get(key):
            values[key] = full_name(values[key]) if key.startswith("data.") else full_source(values[key])
    name = request.source.name if request.source is not None else Path(full_name(data or "series")).name
    folder = create_series_folder(request.out, name)
    recipe = request.recipe
    if from_file and recipe is not None:
        atomic.write_text(folder.recipe, Path(recipe).read_text(encoding="utf-8"))
        recipe = str(folder.recipe)
    asked = replace(request, data=data and full_name(data), recipe=recipe, values=values, out=folder.path)
    _write(folder, asked)
    return folder, asked


def _reopen(request: TrainRequest, listener: Listener) -> tuple[SeriesFolder, TrainRequest]:
    path = folder_to_resume(request)
    folder = SeriesFolder(path)
    asked = read_series(folder)
    if request.source is not None and asked.data is not None:
        raise ConfigError(f"resume={path}: reads its data from {asked.data}, not from Python; give no data with resume")
    if is_moved(request):
        asked = _at_new_place(folder, asked, request, listener)
    recipe = str(folder.recipe) if folder.recipe.is_file() else asked.recipe  # the folder may have moved
    return folder, replace(asked, recipe=recipe, source=request.source)


def _at_new_place(folder: SeriesFolder, asked: TrainRequest, request: TrainRequest, listener: Listener) -> TrainRequest:
    """Note the new place of the data in all runs that have begun, which checks the content, and in the series."""
    runs = [RunFolder(folder.path / member.name) for member in members(asked)]
    begun = [run for run in runs if run.config.is_file()]
    if not begun:
        raise RunError(f"resume={folder.path}: no run has begun; start a new series with the data at its new place")
    for run in begun:
        data = reopen_data(run, request, listener)[0].data
    values = {key: value for key, value in asked.values.items() if key != "data.root"}
    moved = replace(asked, data=data.source, values=values | ({"data.root": data.root} if data.root else {}))
    _write(folder, moved)
    return moved


def _write(folder: SeriesFolder, asked: TrainRequest) -> None:
    atomic.write_text(folder.series, json.dumps({key: getattr(asked, key) for key in _WRITTEN}, indent=2) + "\n")


def _start_or_resume(request: TrainRequest, member: Member, run: RunFolder, first: RunFolder) -> TrainRequest:
    """Return the request that starts or resumes one run."""
    if run.config.is_file():
        return TrainRequest(resume=run.path, source=request.source)
    run.clear_unstarted()
    own = replace(_member_request(request, member), out=run.path)
    if not first.model.is_file():
        return own
    config = read_config(first.config)
    config = replace(config, data=with_copy(first, config.data))
    return replace(own, settled=settled_by(config, is_same_data=config.data.fold == (member.fold or 0)))


def settled_by(config: RunConfig, *, is_same_data: bool) -> dict[str, Any]:
    """Return the keys that another run takes over from a run with this configuration.

    If both train on the same images, what was decided by labels is the same too.
    """
    left_open = {*_OWN_KEYS, *(() if is_same_data else _DECIDED_BY_LABELS)}
    return {key: value for key, value in keys.take_apart(config).items() if key not in left_open}


def _member_request(request: TrainRequest, member: Member) -> TrainRequest:
    values: dict[str, Any] = {**request.values, "train.seed": member.seed}
    if member.fold is not None:
        values |= {"data.num_folds": request.folds, "data.fold": member.fold}
    if "train.budget_s" in values:
        values["train.budget_s"] = keys.checked(values)["train.budget_s"] / len(members(request))
    return replace(request, values=values, folds=0, seeds=0)


def _name(request: TrainRequest, fold: int | None, seed: int) -> str:
    parts = [] if fold is None else [f"fold-{fold}"]
    return "-".join([*parts, f"seed-{seed}"] if request.seeds else parts)
