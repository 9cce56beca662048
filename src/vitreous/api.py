"""A request in Python -> a Run: the few names that most people need."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitreous.threads import let_threads_sleep
from vitreous.use.run import Run

if TYPE_CHECKING:
    from vitreous.data.sources import Dataset

_logger = logging.getLogger("vitreous")


def train(
    data: "str | Path | Dataset | None" = None,
    *,
    budget: str | float | None = None,
    epochs: float | None = None,
    model: str | None = None,
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
    from vitreous.data.sources import open_object
    from vitreous.train.request import TrainRequest, parse_budget
    from vitreous.train.start import run_training
    from vitreous.use.report.page import write_report

    values: dict[str, Any] = {} if epochs is None else {"train.epochs": epochs}
    values |= {} if budget is None else parse_budget(budget)
    values |= config or {}
    request = TrainRequest(
        data=str(data) if isinstance(data, str | Path) else None,
        recipe=recipe,
        model=model,
        values=values,
        out=None if out is None else Path(out).expanduser(),
        resume=None if resume is None else Path(resume).expanduser(),
        source=None if data is None or isinstance(data, str | Path) else open_object(data),
    )
    folder = run_training(request, _log)
    write_report(folder)
    return Run(folder.path)


def load_run(path: str | Path) -> Run:
    """Open a finished run folder, or a `model.safetensors` alone. Raises NotARunError for anything else."""
    return Run(path)


def _log(kind: str, fields: Mapping[str, Any]) -> None:
    level = logging.DEBUG if kind in ("progress", "reading", "step") else logging.INFO
    _logger.log(level, "%s %s", kind, dict(fields))
