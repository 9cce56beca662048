"""A place on disk -> the run folder: the contract between `train`, which fills it, and `use`, which reads it."""

import re
from dataclasses import dataclass
from pathlib import Path

from vitreous.errors import NotARunError, RunError, SaveError


@dataclass(frozen=True)
class RunFolder:
    """Names of everything that a run leaves behind.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """All keys; `vitreous train --recipe` repeats the run from it."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """What was chosen and why."""
        return self.path / "plan.md"

    @property
    def records(self) -> Path:
        """What happened, a JSON object a line."""
        return self.path / "records.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the states that the run can resume from."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Weights of the best evaluation, where the run stops early."""
        return self.checkpoints / "best.safetensors"

    @property
    def model(self) -> Path:
        """The trained model with everything needed to use it; present once the run has ended."""
        return self.path / "model.safetensors"

    @property
    def predictions(self) -> Path:
        """Predictions for the held-out images: path, true class, predicted class, probability of that class."""
        return self.path / "predictions.csv"

    @property
    def example(self) -> Path:
        """One held-out image, as the model sees it."""
        return self.path / "example.png"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.path / "report.html"

    def clear_unbegun(self) -> None:
        """Remove what a process leaves that was killed before it wrote the configuration; anything else stays."""
        if self.path.is_dir() and not self.config.exists():
            self.records.unlink(missing_ok=True)
            for unfinished in self.path.glob(".*.tmp"):
                unfinished.unlink()
            if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
                self.checkpoints.rmdir()


@dataclass(frozen=True)
class SeriesFolder:
    """Names of what a series of runs leaves behind, beside a folder for each run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def series(self) -> Path:
        """What was asked; `vitreous train --resume` goes on from it."""
        return self.path / "series.json"

    @property
    def recipe(self) -> Path:
        """A copy of the recipe file, where one was given."""
        return self.path / "recipe.yaml"

    @property
    def summary(self) -> Path:
        """What came out, for machines."""
        return self.path / "summary.json"

    @property
    def page(self) -> Path:
        """What came out, for people."""
        return self.path / "summary.md"

    def withdraw(self) -> None:
        """Remove a series of which nothing was begun."""
        self.series.unlink(missing_ok=True)
        self.recipe.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()


def check_free(out: Path | None) -> None:
    """Raise RunError where `out` exists and holds something: nothing is ever overwritten."""
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        way_out = (
            f"go on with --resume {out}, or "
            if RunFolder(out).config.exists() or SeriesFolder(out).series.exists()
            else ""
        )
        raise RunError(f"out={out}: exists and is not empty; {way_out}choose another folder")


def create_run_folder(out: Path | None, data_name: str) -> RunFolder:
    """Make a new, empty run folder: `out`, or the next free number below `runs/`.

    Raises:
        RunError: `out` exists and holds something, or another run takes it at this moment.
        SaveError: The folder cannot be made.
    """
    check_free(out)
    if out is not None:
        _make(out)
        folder = RunFolder(out)
    else:
        folder = RunFolder(_next_free(Path("runs"), data_name))
    try:
        folder.checkpoints.mkdir()  # only one of two runs that start at the same moment can make it
    except FileExistsError as error:
        raise RunError(f"out={folder.path}: another run has just begun there; choose another folder") from error
    except OSError as error:
        raise _unmade(folder.checkpoints, error) from error
    return folder


def create_series_folder(out: Path | None, data_name: str) -> SeriesFolder:
    """Make a new, empty folder for a series of runs. Raises as `create_run_folder`."""
    check_free(out)
    if out is None:
        return SeriesFolder(_next_free(Path("runs"), data_name))
    _make(out)
    return SeriesFolder(out)


def open_run_folder(path: Path) -> RunFolder:
    """An existing run folder. Raises NotARunError for any other path, naming what is there."""
    folder = RunFolder(path)
    if SeriesFolder(path).series.is_file():
        raise NotARunError(f"run={path}: is a series of runs; `vitreous train --resume {path}` goes on with it")
    if not folder.config.is_file():
        there = "a folder without config.yaml" if path.is_dir() else "a file" if path.exists() else "nothing"
        known = sorted(str(config.parent) for config in Path("runs").glob("*/config.yaml"))
        hint = f"runs here: {', '.join(known[-5:])}" if known else "`vitreous train DATA` makes one"
        raise NotARunError(f"run={path}: is no run folder ({there}); {hint}")
    return folder


def sweep(folder: RunFolder) -> None:
    """Remove what a killed process had begun to write and not finished; for the one that goes on with its run."""
    for unfinished in [*folder.path.glob(".*.tmp"), *folder.checkpoints.glob(".*.tmp")]:
        unfinished.unlink(missing_ok=True)


def _next_free(parent: Path, data_name: str) -> Path:
    stem = re.sub(r"[^\w.-]+", "-", data_name).strip("-.") or "run"
    _make(parent)
    numbers = [int(path.name.rpartition("-")[2]) for path in parent.glob("*-[0-9]*") if path.name[-1].isdigit()
               and path.name.rpartition("-")[0] == stem and path.name.rpartition("-")[2].isdigit()]  # fmt: skip
    number = max(numbers, default=0) + 1
    while True:
        path = parent / f"{stem}-{number}"
        try:
            path.mkdir()
        except FileExistsError:  # another run started at the same moment
            number += 1
        except OSError as error:
            raise _unmade(path, error) from error
        else:
            return path


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unmade(path, error) from error


def _unmade(path: Path, error: OSError) -> SaveError:
    return SaveError(f"{path}: cannot be made ({error.strerror}); choose another folder with --out")
