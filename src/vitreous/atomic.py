"""Bytes -> a file, or a folder of files, that is complete or absent, never half written."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from vitreous.errors import SaveError


def write(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a file through a temporary neighbour: fill, fsync, rename, fsync the folder.

    A crash at any moment leaves either the old file or the new one. `path`'s folder must exist.

    Args:
        path: Where the file shall stand.
        fill: Writes the whole content to the path it is given.

    Raises:
        SaveError: The file could not be written (disk full, no permission …); the old one, if any, is untouched.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        fill(temporary)
        temporary.chmod(0o666 & ~_umask())
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SaveError(
            f"{path}: could not be written ({reason}); free some space or choose another folder with --out"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically. Raises SaveError as `write` does."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(content)

    write(path, fill)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises SaveError as `write` does."""
    write_bytes(path, text.encode())


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder of files through a temporary neighbour: fill, fsync, rename, fsync the folder above.

    A crash at any moment leaves the whole folder or none. `path`'s folder must exist.

    Args:
        path: Where the folder shall stand; nothing is there yet, or an empty folder.
        fill: Writes all files into the folder it is given.

    Raises:
        SaveError: The folder could not be written (disk full, no permission …); `path` is as it was.
    """
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        fill(temporary)
        temporary.chmod(0o777 & ~_umask())
        for file in temporary.rglob("*"):
            _fsync(file)
        _fsync(temporary)
        if path.is_dir():
            path.rmdir()  # elsewhere than on POSIX an empty folder is in the way
        temporary.rename(path)
        _fsync(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SaveError(f"{path}: could not be written ({reason}); free some space or choose another folder") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and its rename is durable without
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
