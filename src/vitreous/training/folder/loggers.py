"""Records of a run -> TensorBoard, Weights & Biases, MLflow or trackio, as requested by `train.logger`.

`records.jsonl` is always written and is complete. These trackers get a copy of its numbers. Their packages are imported
only when a run that uses them starts.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from pathlib import Path
from secrets import token_hex
from typing import Any

from vitreous import atomic
from vitreous.errors import ConfigError, TrackerWarning, VitreousError, optional_module
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.records import Listener
from vitreous.training.folder.run_folder import RunFolder

KINDS = ("step", "evaluation", "health", "end")
"""Kinds of records whose numbers are passed on."""


@dataclass(frozen=True)
class Tracker:
    """An experiment tracker.

    `log` takes numbers by name and their step. `close` writes everything that is still buffered, and takes whether
    training failed or was interrupted.
    """

    log: Callable[[Mapping[str, float], int], object]
    close: Callable[[bool], object]


def _tensorboard(folder: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """Write event files in the run folder, for `tensorboard --logdir runs`; the configuration is stored as text."""
    _import("tensorboard")
    writer = import_module("torch.utils.tensorboard").SummaryWriter(log_dir=str(folder / "tensorboard"))
    writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(numbers: Mapping[str, float], step: int) -> None:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step)

    return Tracker(log, lambda failed: writer.close())


def _wandb(folder: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """Start a Weights & Biases run; project and account come from wandb's own environment."""
    package, known = _import("wandb"), _known_id(folder)
    run = package.init(name=name, id=known, dir=str(folder), config=dict(config), resume="allow")
    _remember_id(folder, run.id)
    return Tracker(
        lambda numbers, step: run.log(dict(numbers), step=step), lambda failed: run.finish(exit_code=int(failed))
    )


def _mlflow(folder: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """Start an MLflow run; the tracking server comes from MLflow's own environment."""
    package, known = _import("mlflow"), _known_id(folder)
    run = package.start_run(run_id=known, run_name=name, nested=package.active_run() is not None)
    if known is None:  # parameters must not change
        package.log_params({key: str(value)[:500] for key, value in config.items()})
    _remember_id(folder, run.info.run_id)
    return Tracker(
        lambda numbers, step: package.log_metrics(dict(numbers), step=step),
        lambda failed: package.end_run("FAILED" if failed else "FINISHED"),
    )


def _trackio(folder: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """Start a trackio run; its place comes from trackio's own environment."""
    package = _import("trackio")
    unique = _known_id(folder) or f"{name}-{token_hex(3)}"  # trackio resumes runs by their names
    run = package.init(project="vitreous", name=unique, config=dict(config), resume="allow", embed=False)
    _remember_id(folder, unique)
    return Tracker(lambda numbers, step: run.log(dict(numbers), step=step), lambda failed: run.finish())


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
"""Name of a tracker -> the function that starts it, with the run folder, the name of the run and its configuration."""


@contextmanager
def tracked(listener: Listener, folder: Path, config: RunConfig) -> Iterator[Listener]:
    """Yield a listener that also feeds the tracker of `train.logger`; the tracker is closed when the context ends.

    Raises:
        MissingDependencyError: The tracker's package is not installed.
        ConfigError: The tracker cannot start, because of its settings for instance.
    """
    name = config.train.logger
    if name == "none":
        yield listener
        return
    try:
        tracker = TRACKERS[name](folder, folder.name, keys.take_apart(config))
    except VitreousError:
        raise
    except Exception as error:  # trackers raise errors of any type
        raise ConfigError(
            f"train.logger={name}: could not start ({_reason(error)}); check its settings, or use train.logger=none"
        ) from error
    failed = True
    try:
        yield with_tracker(listener, tracker)
        failed = False
    finally:
        _attempt(lambda: tracker.close(failed))


def with_tracker(listener: Listener, tracker: Tracker) -> Listener:
    """Return a listener that calls `listener` and then logs the numbers of the record to `tracker`.

    After a tracker has failed once, which a TrackerWarning says, it is not called again.
    """
    works = True

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        nonlocal works
        listener(kind, fields)
        if works and kind in KINDS and "step" in fields:
            group = f"{kind}/{fields['weights']}" if kind == "evaluation" else kind
            numbers = {f"{group}/{name}": value for name, value in _numbers(fields) if name != "step"}
            works = _attempt(lambda: tracker.log(numbers, int(fields["step"])))

    return listen


def _attempt(action: Callable[[], object]) -> bool:
    """Call a tracker, and return whether it worked: training does not end because a server is down."""
    try:
        action()
    except Exception as error:  # trackers raise errors of any type
        warnings.warn(
            f"train.logger: the tracker failed ({_reason(error)}); the run goes on without it, and records.jsonl is "
            "complete",
            TrackerWarning,
            stacklevel=3,
        )
        return False
    return True


def _reason(error: Exception) -> str:
    """Return an error's type and message in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _known_id(folder: Path) -> str | None:
    """Return the id that the tracker gave to a run which is resumed; None for a new one."""
    file = RunFolder(folder).tracker
    return file.read_text("utf-8").strip() if file.is_file() else None


def _remember_id(folder: Path, identifier: str) -> None:
    atomic.write_text(RunFolder(folder).tracker, f"{identifier}\n")


def _numbers(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the name and value of every number; nested ones are named `outer/inner`."""
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, list | tuple):
            yield from _numbers({str(index): item for index, item in enumerate(value)}, f"{prefix}{key}/")
        elif isinstance(value, Real) and not isinstance(value, bool):
            yield prefix + key, float(value)


def _import(package: str) -> Any:
    """Import the package of a tracker, which has the name of the option of `train.logger`."""
    return optional_module(package, f"train.logger={package}", f"pip install {package}")
