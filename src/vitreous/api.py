"""A request in Python -> a Run: the few names that most people need."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitreous.heap import keep_freed_memory
from vitreous.threads import let_threads_sleep
from vitreous.use.run import Run
from vitreous.use.series.series import Series

if TYPE_CHECKING:
    from vitreous.data.sources import Dataset
    from vitreous.training.request import TrainRequest
    from vitreous.use.series.compare import Comparison

_logger = logging.getLogger("vitreous")


def train(
    data: "str | Path | Dataset | None" = None,
    *,
    budget: str | float | None = None,
    epochs: float | None = None,
    model: str | None = None,
    pretrained: str | Path | None = None,
    recipe: str | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> Run:
    """Train a Vision Transformer on a folder of images, or on a named set.

    Progress goes to the logger `vitreous`; `logging.basicConfig(level="INFO")` shows it.

    Args:
        data: A folder of class folders, or one with `train/` and `val/` or `test/`; a table of paths and labels
            (`.csv`, `.tsv`, `.parquet`); `digits`, `mnist`, `fashion-mnist`, `cifar10`, `cifar100`;
            `hf://organisation/name`; or a `torch.utils.data.Dataset` of (image, label) without random transforms, or a
            tuple of such: (train, val), (train, val, test).
        budget: Time for everything, such as `"10m"` or seconds; or `"30ep"`. None: the recipe's usual length.
        epochs: Passes over the training images; with a budget, at most so many.
        model: Such as `vit_micro` or `vit_small_patch16_224`. None: what suits the data and the budget.
        pretrained: Weights to begin from, whose model it is then: a run, a file or folder of weights as `load_model`
            opens them, or `hf://organisation/name`. None: fresh ones.
        recipe: Name of a shipped recipe or path of a YAML file. None: what suits the data.
        out: Folder to make. None: the next free one below `runs/`.
        resume: A run to go on with; no other argument then, except `data` where that came from Python.
        config: Any key of the configuration, e.g. `{"optim.lr": 3e-4, "train.seed": 1}`; overrides everything else.

    Returns:
        The finished run.

    Raises:
        VitreousError: Whatever stands in the way; `vitreous.errors` draws the tree.
    """
    let_threads_sleep()
    keep_freed_memory()
    from vitreous.training.start import run_training
    from vitreous.use.report.page import write_report

    begun = {} if pretrained is None else {"train.pretrained": str(pretrained)}
    values = begun | _values(budget, epochs, config)
    folder = run_training(_request(data, values, recipe=recipe, model=model, out=out, resume=resume), _log)
    write_report(folder)
    return Run(folder.path)


def train_series(
    data: "str | Path | Dataset | None" = None,
    *,
    folds: int = 0,
    seeds: int = 0,
    budget: str | float | None = None,
    epochs: float | None = None,
    model: str | None = None,
    recipe: str | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> Series:
    """Train several runs that differ by their fold or seed alone: how good is this way to train, and how sure is that?

    Args:
        data: As in `train`, and so are all that are not listed here.
        folds: Divide the images into so many folds and train as many runs, each tested on one fold; 0: a single split.
        seeds: Train so many runs that differ by their seed; with folds, so many of each; 0: a single seed.
        budget: Time for all runs together, each gets an equal share; or `"30ep"`, which is for each.
        epochs: Of each run.
        model: As in `train`.
        recipe: As in `train`.
        out: Folder to make; each run gets a folder in it.
        resume: A series to go on with; no other argument then, except `data` where that came from Python.
        config: As in `train`.

    Returns:
        The finished series.

    Raises:
        VitreousError: Whatever stands in the way.
    """
    let_threads_sleep()
    keep_freed_memory()
    from dataclasses import replace

    from vitreous.training.series import run_series
    from vitreous.use.series.page import complete

    values = _values(budget, epochs, config)
    request = _request(data, values, recipe=recipe, model=model, out=out, resume=resume)
    folder = run_series(replace(request, folds=folds, seeds=seeds), complete, _log)
    return Series(folder.path)


def compare(a: str | Path | Run | Series, b: str | Path | Run | Series) -> "Comparison":
    """Compare two runs, or two series, image by image on the images that both were tested on.

    Args:
        a: A run, a series, or the folder of one.
        b: Another.

    Raises:
        VitreousError: One is neither, or no image was tested by both.
    """
    from vitreous.use.series.compare import compare as compare_folders

    folders = [Path(thing.path if isinstance(thing, Run | Series) else thing) for thing in (a, b)]
    return compare_folders(*folders)


def load_run(path: str | Path) -> Run:
    """Open a finished run folder, or a `model.safetensors` alone. Raises NotARunError for anything else."""
    return Run(path)


def _values(budget: str | float | None, epochs: float | None, config: Mapping[str, Any] | None) -> dict[str, Any]:
    from vitreous.training.request import parse_budget

    values: dict[str, Any] = {} if epochs is None else {"train.epochs": epochs}
    values |= {} if budget is None else parse_budget(budget)
    return values | dict(config or {})


def _request(
    data: "str | Path | Dataset | None",
    values: Mapping[str, Any],
    *,
    recipe: str | None,
    model: str | None,
    out: str | Path | None,
    resume: str | Path | None,
) -> "TrainRequest":
    from vitreous.data.sources import open_object
    from vitreous.training.request import TrainRequest

    return TrainRequest(
        data=str(data) if isinstance(data, str | Path) else None,
        recipe=recipe,
        model=model,
        values=values,
        out=None if out is None else Path(out).expanduser(),
        resume=None if resume is None else Path(resume).expanduser(),
        source=None if data is None or isinstance(data, str | Path) else open_object(data),
    )


def _log(kind: str, fields: Mapping[str, Any]) -> None:
    level = logging.DEBUG if kind in ("progress", "reading", "step") else logging.INFO
    _logger.log(level, "%s %s", kind, dict(fields))
