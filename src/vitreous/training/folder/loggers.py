"""Records of a run -> TensorBoard, Weights & Biases or MLflow, as requested by `train.logger`.

`records.jsonl` is always written and is complete. These trackers get a copy of its numbers. Their packages are imported
only when a run that uses them starts.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

from vitreous.errors import MissingDependencyError
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.records import Listener

KINDS = ("step", "evaluation", "health", "end")
"""Kinds of records whose numbers are passed on."""


class Tracker(Protocol):
    """An experiment tracker that takes named numbers."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log the numbers of a step, by name."""

    def close(self) -> None:
        """Write everything that is still buffered."""


class TensorBoard:
    """Event files in the run folder, for `tensorboard --logdir runs`; the configuration is stored as text."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        package = _import("torch.utils.tensorboard", "tensorboard")
        self._writer = package.SummaryWriter(log_dir=str(folder / "tensorboard"))
        self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log each number as a scalar."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandB:
    """A Weights & Biases run with the name of the folder; project and account come from wandb's own environment."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        package = _import("wandb", "wandb")
        # The id makes a resumed run continue the same wandb run.
        self._run = package.init(name=name, id=name, dir=str(folder), config=dict(config), resume="allow")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log all numbers in one call."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the wandb run."""
        self._run.finish()


class MLflow:
    """An MLflow run with the name of the folder; the tracking server comes from MLflow's own environment."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        self._package = _import("mlflow", "mlflow")
        self._package.start_run(run_name=name)
        self._package.log_params({key: str(value)[:500] for key, value in config.items()})

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log all numbers in one call."""
        self._package.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        """End the MLflow run."""
        self._package.end_run()


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


@contextmanager
def tracked(listener: Listener, folder: Path, config: RunConfig) -> Iterator[Listener]:
    """Yield a listener that also feeds the tracker of `train.logger`; the tracker is closed when the context ends.

    Raises:
        MissingDependencyError: The tracker's package is not installed.
    """
    if config.train.logger == "none":
        yield listener
        return
    tracker = TRACKERS[config.train.logger](folder, folder.name, keys.take_apart(config))
    try:
        yield with_tracker(listener, tracker)
    finally:
        tracker.close()


def with_tracker(listener: Listener, tracker: Tracker) -> Listener:
    """Return a listener that calls `listener` and then logs the numbers of the record to `tracker`."""

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        listener(kind, fields)
        if kind in KINDS and "step" in fields:
            group = f"{kind}/{fields['weights']}" if kind == "evaluation" else kind
            numbers = {f"{group}/{name}": value for name, value in _numbers(fields) if name != "step"}
            tracker.log(numbers, int(fields["step"]))

    return listen


def _numbers(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the name and value of every number; nested ones are named `outer/inner`."""
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, list | tuple):
            yield from _numbers({str(index): item for index, item in enumerate(value)}, f"{prefix}{key}/")
        elif isinstance(value, Real) and not isinstance(value, bool):
            yield prefix + key, float(value)


def _import(module: str, package: str) -> Any:
    """Import a tracker's module; its package has the name of the option of `train.logger`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"train.logger={package}: needs the package {package}, which is not installed; pip install {package}"
        ) from error
