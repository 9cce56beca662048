"""Path of a run -> its folder: created, opened, or locked while a process writes to it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

from vitreous.atomic import create_folder
from vitreous.data.sources.source import as_text
from vitreous.errors import NotARunError, RunError
from vitreous.file_locks import try_lock
from vitreous.paths import portable
from vitreous.training.folder.records import Listener
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder


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
def exclusive(folder: Path, listener: Listener, busy: str = "") -> Iterator[None]:
    """Context manager that keeps other processes from writing to a folder; the lock ends with this process.

    `busy` is the beginning of the error; by default, it says that another process trains this run. The listener
    receives the event `unlocked` if the system or the disk does not support locks.

    Raises:
        RunError: Another process holds the folder.
    """
    descriptor = None
    with suppress(OSError):  # Windows does not open folders
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        is_locked = None if descriptor is None else try_lock(descriptor)
        if is_locked is False:
            busy = busy or f"run={folder}: another process is training it"
            raise RunError(f"{busy}; wait until it ends, or stop it first")
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
    folder = RunFolder(_new_folder(out, data_name))
    try:
        create_folder(folder.checkpoints, is_new=True)  # fails in one of two runs that start at the same moment
    except FileExistsError as error:
        raise RunError(f"out={folder.path}: another run just started there; choose another folder") from error
    return folder


def create_series_folder(out: Path | None, data_name: str) -> SeriesFolder:
    """Create a new, empty folder for a series of runs. Raises RunError or SaveError, like `create_run_folder`."""
    return SeriesFolder(_new_folder(out, data_name))


def _new_folder(out: Path | None, data_name: str) -> Path:
    check_free(out)
    if out is None:
        return create_numbered(Path("runs"), data_name)
    create_folder(out)
    return out


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


def prepare_stage(folder: RunFolder) -> None:
    """Create the folder of a stage inside a run folder, or clean up what a killed process left there."""
    create_folder(folder.checkpoints)
    sweep(folder)


def create_numbered(parent: Path, name: str) -> Path:
    """Create the folder `<name>-<number>` with the number after the largest one. Raises SaveError if that fails."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    stem = portable(f"{stem}-").removesuffix("-")
    create_folder(parent)
    parts = [path.name.rpartition("-") for path in parent.glob("*-[0-9]*")]
    largest = max([int(digits) for begin, _, digits in parts if begin == stem and digits.isdecimal()], default=0)
    path = parent / f"{stem}-{largest + 1}"
    try:
        create_folder(path, is_new=True)
    except FileExistsError:  # another run started at the same moment
        return create_numbered(parent, name)
    return path
