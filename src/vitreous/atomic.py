"""Bytes -> a file, or a folder of files, that is either complete or absent, never half written; a path -> a folder."""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from vitreous.errors import SaveError

_LONGEST_END = 50
"""Characters; in UTF-8, up to 200 of the 255 bytes that a name may have."""


def write(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a file atomically: fill a temporary file in the same folder, fsync it, rename it, fsync the folder.

    After a crash at any moment, `path` is either the old file or the new one. The folder of `path` must exist; `fill`
    writes the whole content to the path that it is given.

    Raises:
        SaveError: The file could not be written (disk full, no permission); an old file is unchanged.
    """
    temporary = _next_to(path)
    try:
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        fill(temporary)
        temporary.chmod(mode)  # safetensors puts another file in its place
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        raise SaveError(
            f"{path}: could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file atomically. Raises SaveError if that fails; an old file is unchanged."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(content)

    write(path, fill)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a file atomically. Raises SaveError if that fails; an old file is unchanged."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any, indent: int = 1) -> None:
    """Write a value as JSON to a file atomically. Raises SaveError if that fails; an old file is unchanged."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def plain(value: Any, digits: int | None = None) -> Any:
    """Return arrays and numbers of numpy as values that JSON has, rounded if `digits` are given.

    A number that is not finite becomes None. Keys become text.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits) for key, item in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return [plain(item, digits) for item in value]
    if not isinstance(value, float):
        return value
    if not isfinite(value):
        return None
    return value if digits is None else round(value, digits)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder atomically: fill a temporary folder next to it, fsync, rename, fsync the parent folder.

    After a crash at any moment, either the whole folder is there or nothing is. The folder must not exist or must be
    empty, and its parent must exist. `fill` writes all files into the folder that it is given.

    Raises:
        SaveError: The folder could not be written (disk full, no permission); `path` is unchanged.
    """
    temporary = _next_to(path)
    try:
        temporary.mkdir()
        fill(temporary)
        for file in temporary.rglob("*"):
            _fsync(file)
        _fsync(temporary)
        if path.is_dir():
            path.rmdir()  # only POSIX renames onto an empty folder
        temporary.rename(path)
        _fsync(path.parent)
    except OSError as error:
        raise SaveError(
            f"{path}: could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def create_folder(path: Path, *, parents: bool = True, is_new: bool = False) -> None:
    """Create a folder, and its parents unless they must exist.

    Raises:
        SaveError: The folder could not be created.
        FileExistsError: There is one already, and `is_new` is True.
    """
    try:
        path.mkdir(parents=parents, exist_ok=not is_new)
    except OSError as error:
        if is_new and isinstance(error, FileExistsError):
            raise
        raise SaveError(f"{path}: cannot be created ({error.strerror}); choose another folder") from error


def _next_to(path: Path) -> Path:
    """Return an unused path in the same folder. Its name keeps only the end of the given one, which may be long."""
    return path.parent / f".{path.name[-_LONGEST_END:]}.{secrets.token_hex(8)}.tmp"


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and its renames are durable anyway
    # Windows flushes only files that are open for writing, and no system opens folders for it.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
