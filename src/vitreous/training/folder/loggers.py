"""Records of a run -> TensorBoard, Weights & Biases or MLflow: whoever has one of them sees the run there too.

`records.jsonl` is always written and holds everything; these get its numbers. Their packages are imported when a run
that asks for one begins, and never otherwise.
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
"""Records whose numbers are passed on."""


class Tracker(Protocol):
    """Where numbers go."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Keep numbers of a step, by name."""

    def close(self) -> None:
        """Write what is not written yet."""


class TensorBoard:
    """Event files in the run folder: `tensorboard --logdir runs`. Of `config` it keeps the text."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        package = _package("torch.utils.tensorboard", "tensorboard", "tensorboard")
        self._writer = package.SummaryWriter(log_dir=str(folder / "tensorboard"))
        self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """One scalar each."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, named like the folder; project and account are those of its own environment."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        package = _package("wandb", "wandb", "wandb")
        # A run that is resumed goes on where it is shown.
        self._run = package.init(name=name, id=name, dir=str(folder), config=dict(config), resume="allow")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """All at once."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the run there."""
        self._run.finish()


class MLflow:
    """A run of MLflow, named like the folder; its server is that of its own environment."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        self._package = _package("mlflow", "mlflow", "mlflow")
        self._package.start_run(run_name=name)
        self._package.log_params({key: str(value)[:500] for key, value in config.items()})

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """All at once."""
        self._package.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        """End the run there."""
        self._package.end_run()


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


@contextmanager
def tracked(listener: Listener, folder: Path, config: RunConfig) -> Iterator[Listener]:
    """The listener, and while it lasts the tracker of `train.logger`, if any, hears what it hears.

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
    """A listener that tells a tracker too."""

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        listener(kind, fields)
        if kind in KINDS and "step" in fields:
            group = f"{kind}/{fields['weights']}" if kind == "evaluation" else kind
            numbers = {f"{group}/{name}": value for name, value in _numbers(fields) if name != "step"}
            tracker.log(numbers, int(fields["step"]))

    return listen


def _numbers(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All that is a number, inner ones by `outer/inner`."""
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, list | tuple):
            yield from _numbers({str(place): item for place, item in enumerate(value)}, f"{prefix}{key}/")
        elif isinstance(value, Real) and not isinstance(value, bool):
            yield prefix + key, float(value)


def _package(module: str, package: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"train.logger={name}: needs the package {package}, which is not installed; pip install {package}"
        ) from error
