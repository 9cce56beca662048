"""Path -> RunFolder: the names of all files of a run, which `training` writes and `use` reads."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from vitreous.data.sources.source import as_text
from vitreous.errors import NotARunError, RunError, SaveError
from vitreous.file_locks import try_lock
from vitreous.training.folder.records import Listener


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The value of every key; `vitreous train --recipe` repeats the run from this file."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """The choices of the planner, with reasons."""
        return self.path / "plan.md"

    @property
    def records(self) -> Path:
        """The events of the run, one JSON object per line."""
        return self.path / "records.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints from which the run can be resumed."""
        return self.path / "checkpoints"

    @property
    def first(self) -> Path:
        """The pretrained weights with a fitted head, before the first step; it may become the model."""
        return self.checkpoints / "first.safetensors"

    @property
    def best(self) -> Path:
        """The model with the lowest validation loss so far, if it is not the first one."""
        return self.checkpoints / "best.safetensors"

    @property
    def teacher(self) -> Path:
        """What a teacher gave before the first step: probabilities for the training images, or its fitted head."""
        return self.checkpoints / "teacher.safetensors"

    @property
    def model(self) -> Path:
        """The trained model with everything needed to use it; written when the run ends."""
        return self.path / "model.safetensors"

    @property
    def images(self) -> Path:
        """Hashes of the images of the run, by which `evaluate` recognizes them; see `training/folder/images.py`."""
        return self.path / "images.safetensors"

    @property
    def predictions(self) -> Path:
        """Predictions for the held-out images: path, true class, predicted class, probability of that class."""
        return self.path / "predictions.csv"

    @property
    def folds(self) -> "SeriesFolder":
        """The folds that show how certain the accuracy is, if few images tested the run; see `use/series/automatic`."""
        return SeriesFolder(self.path / "folds")

    @property
    def outputs(self) -> Path:
        """Logits and labels of the validation and test images; see `training/folder/outputs.py`."""
        return self.path / "outputs.safetensors"

    @property
    def familiarity(self) -> Path:
        """What training images look like to the model, by which `predict` flags images unlike them."""
        return self.path / "familiarity.safetensors"

    @property
    def example(self) -> Path:
        """One held-out image after preprocessing, as the model gets it; an array if it is neither gray nor color."""
        array = self.path / "example.npy"
        return array if array.is_file() else self.path / "example.png"

    @property
    def corrections(self) -> Path:
        """Copy of the file that corrected the data, if there is one; it is read instead of the original."""
        return self.path / "corrections.csv"

    @property
    def slices(self) -> Path:
        """Groups of held-out images and their accuracy; only if they were looked for."""
        return self.path / "slices.json"

    @property
    def shortcuts(self) -> Path:
        """Places that the model may use instead of the object; only if they were looked for."""
        return self.path / "shortcuts.json"

    @property
    def shortcuts_picture(self) -> Path:
        """Where relevance lies in the images of each class; written with `shortcuts`."""
        return self.path / "shortcuts.jpg"

    @property
    def robustness(self) -> Path:
        """Accuracy on changed photos, written by `vitreous evaluate --robustness`."""
        return self.path / "robustness.json"

    @property
    def report(self) -> Path:
        """The HTML report; its numbers are next to it in `report.json`."""
        return self.path / "report.html"

    @property
    def model_card(self) -> Path:
        """What the model is for, its scores and limits, as hubs of models read it."""
        return self.path / "MODEL_CARD.md"

    @property
    def anatomy(self) -> Path:
        """What the model has learned, written by `vitreous explain --model`; its pictures are next to it."""
        return self.path / "anatomy" / "anatomy.html"

    def find_preliminary(self) -> Path | None:
        """Return the best model of a run that is not finished; None if there is none yet."""
        return next((file for file in (self.best, self.first) if file.is_file()), None)

    def remove_preliminary(self) -> None:
        """Remove what only an unfinished run needs: the models that the final one replaces, and its teacher's part."""
        for file in (self.best, self.first, self.teacher):
            file.unlink(missing_ok=True)

    def clear_unstarted(self) -> None:
        """Remove the files of a process that ended before it wrote the configuration; keep all other files."""
        if self.path.is_dir() and not self.config.exists():
            self.records.unlink(missing_ok=True)
            self.corrections.unlink(missing_ok=True)
            for unfinished in self.path.glob(".*.tmp"):
                unfinished.unlink()
            if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
                self.checkpoints.rmdir()


@dataclass(frozen=True)
class SeriesFolder:
    """Paths of the files of a series of runs; each run has its own folder inside.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def series(self) -> Path:
        """The request; `vitreous train --resume` continues from it."""
        return self.path / "series.json"

    @property
    def recipe(self) -> Path:
        """A copy of the recipe file, if one was given."""
        return self.path / "recipe.yaml"

    @property
    def summary(self) -> Path:
        """The results as JSON."""
        return self.path / "summary.json"

    @property
    def page(self) -> Path:
        """The results as Markdown."""
        return self.path / "summary.md"

    def withdraw(self) -> None:
        """Remove the files of a series in which no run was started, and the folder if it is then empty."""
        self.series.unlink(missing_ok=True)
        self.recipe.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()


def check_free(out: Path | None) -> None:
    """Raise RunError if `out` is a file or a folder that is not empty, because nothing is ever overwritten.

    Also raise it for a path that is not valid UTF-8: safetensors could write checkpoints there but not read them.
    """
    if out is not None and as_text(out) != str(out):
        raise RunError(f"out={as_text(out)}: is not valid UTF-8; choose another folder")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        can_resume = RunFolder(out).config.exists() or SeriesFolder(out).series.exists()
        advice = f"continue it with --resume {quote(str(out))}, or " if can_resume else ""
        raise RunError(f"out={out}: exists and is not empty; {advice}choose another folder")


@contextmanager
def exclusive(folder: Path, listener: Listener) -> Iterator[None]:
    """Context manager that keeps other processes from training in a folder; the lock ends with this process.

    Args:
        folder: Folder of a run or of a series.
        listener: Receives the event `unlocked` if the system or the disk does not support locks.

    Raises:
        RunError: Another process holds the folder.
    """
    descriptor = None
    with suppress(OSError):  # Windows does not open folders
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        is_locked = None if descriptor is None else try_lock(descriptor)
        if is_locked is False:
            raise RunError(f"run={folder}: another process is training it; wait until it ends, or stop it first")
        if is_locked is None:
            listener("unlocked", {"run": str(folder)})
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def create_run_folder(out: Path | None, data_name: str) -> RunFolder:
    """Create a new, empty run folder: `out`, or `runs/<data_name>-<next free number>`.

    Raises:
        RunError: `out` exists and is not empty, or another run takes it at the same moment.
        SaveError: The folder cannot be created.
    """
    check_free(out)
    if out is not None:
        _create(out)
        folder = RunFolder(out)
    else:
        folder = RunFolder(_next_free(Path("runs"), data_name))
    try:
        folder.checkpoints.mkdir()  # if two runs start at the same moment, this fails in one of them
    except FileExistsError as error:
        raise RunError(f"out={folder.path}: another run just started there; choose another folder") from error
    except OSError as error:
        raise _not_created(folder.checkpoints, error) from error
    return folder


def create_series_folder(out: Path | None, data_name: str) -> SeriesFolder:
    """Create a new, empty folder for a series of runs. Raises RunError or SaveError, like `create_run_folder`."""
    check_free(out)
    if out is None:
        return SeriesFolder(_next_free(Path("runs"), data_name))
    _create(out)
    return SeriesFolder(out)


def open_run_folder(path: Path) -> RunFolder:
    """Open an existing run folder. Raises NotARunError if the path is anything else, and says what it is."""
    folder = RunFolder(path)
    if SeriesFolder(path).series.is_file():
        raise NotARunError(
            f"run={path}: is a series of runs; use one of the runs inside it, or continue with "
            f"`vitreous train --resume {quote(str(path))}`"
        )
    if not folder.config.is_file():
        problem = "does not exist"
        if path.exists():
            problem = f"is {'a folder without config.yaml' if path.is_dir() else 'a file'}, not a run folder"
        known = sorted(str(config.parent) for config in Path("runs").glob("*/config.yaml"))
        advice = f"use one of {', '.join(known[-5:])}" if known else "create one with `vitreous train DATA`"
        raise NotARunError(f"run={path}: {problem}; {advice}")
    return folder


def sweep(folder: RunFolder) -> None:
    """Remove the temporary files of a killed process, before its run is resumed."""
    for unfinished in [*folder.path.glob(".*.tmp"), *folder.checkpoints.glob(".*.tmp")]:
        unfinished.unlink(missing_ok=True)


def _next_free(parent: Path, data_name: str) -> Path:
    """Create `<data_name>-<number>` with the number after the largest one that exists."""
    stem = re.sub(r"[^\w.-]+", "-", data_name).strip("-.") or "run"
    _create(parent)
    numbers = [0]
    for path in parent.glob("*-[0-9]*"):
        name, _, digits = path.name.rpartition("-")
        if name == stem and digits.isdecimal():
            numbers.append(int(digits))
    number = max(numbers)
    while True:
        number += 1
        path = parent / f"{stem}-{number}"
        try:
            path.mkdir()
        except FileExistsError:  # another run started at the same moment
            continue
        except OSError as error:
            raise _not_created(path, error) from error
        return path


def _create(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_created(path, error) from error


def _not_created(path: Path, error: OSError) -> SaveError:
    return SaveError(f"{path}: cannot be created ({error.strerror}); choose another folder with --out")
