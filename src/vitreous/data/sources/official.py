"""A named set's official files -> their contents: found on this machine, or fetched, checked and kept."""

import os
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from vitreous import atomic
from vitreous.errors import DataNotFoundError

MAX_BYTES = 1 << 30
"""No official file is larger than this, fetched or unpacked."""

_DOWNLOAD_TIMEOUT_S = 30

Contents = TypeVar("Contents")


def find_or_fetch(
    name: str,
    address: str,
    files: Sequence[str],
    read: Callable[[Path], tuple[Contents | None, str]],
    check: Callable[[Mapping[str, bytes]], Contents],
) -> tuple[Contents, list[str]]:
    """Look into each of `places`; where the set is in none of them, fetch it and keep it in the cache.

    Args:
        name: What users call the set.
        address: Where `<file>` is published.
        files: The published files.
        read: A folder -> what is in it; or None, and why this folder does not have the set.
        check: The files as they were fetched -> what is in them; raises DataError where that is not the set.

    Returns:
        What is in the files, and notes for the user.

    Raises:
        DataNotFoundError: The set is in none of the places and cannot be fetched.
        DataError: From `check`.
    """
    refused: list[str] = []
    for folder in places(name):
        contents, reason = read(folder)
        if contents is not None:
            return contents, []
        refused.append(f"{folder} ({reason})")
    try:
        fetched = {file: _fetch(f"{address}/{file}") for file in files}
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", None) or error
        raise DataNotFoundError(
            f"data.source={name}: not in {', '.join(refused)}, and {address} was not reached ({cause}); "
            f"put {', '.join(files)} into a folder and set VITREOUS_DATA to it"
        ) from error
    contents = check(fetched)
    return contents, _keep(fetched, cache_folder() / name)


def places(name: str) -> list[Path]:
    """The folders where a named set may lie, in the order they are looked at."""
    own = os.environ.get("VITREOUS_DATA")
    folders = [Path(own) / name, Path(own)] if own else []
    return [*folders, cache_folder() / name, Path("/usr/share/datasets") / name]


def cache_folder() -> Path:
    """This user's cache: $XDG_CACHE_HOME/vitreous where set, else the platform's usual place."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "vitreous"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vitreous"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vitreous" / "Cache"
    return Path.home() / ".cache" / "vitreous"


def _fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=_DOWNLOAD_TIMEOUT_S) as reply:
        return reply.read(MAX_BYTES)


def _keep(fetched: Mapping[str, bytes], folder: Path) -> list[str]:
    """Store what was fetched; where that fails the run goes on, and the note says so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in fetched.items():
            atomic.write_bytes(folder / file, content)
    except OSError as error:
        return [
            f"{folder}: the fetched files could not be kept ({error.strerror or error}); they will be fetched again"
        ]
    return []
