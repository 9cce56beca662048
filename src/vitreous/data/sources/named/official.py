"""A named data set -> the contents of its official files: found on this machine, or downloaded, checked and cached."""

import hashlib
import os
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from vitreous import atomic
from vitreous.data.sources.source import first_line
from vitreous.errors import DataError, DataNotFoundError
from vitreous.paths import cache_folder
from vitreous.wording import listed

MAX_BYTES = 1 << 30
"""Maximum number of bytes read from an official file, downloaded or unpacked; all of them are smaller."""

_DOWNLOAD_TIMEOUT_S = 30

Contents = TypeVar("Contents")


def find_or_download(
    name: str,
    address: str,
    files: Sequence[str],
    read: Callable[[Path], tuple[Contents | None, str]],
    check: Callable[[Mapping[str, bytes]], Contents],
) -> tuple[Contents, list[str]]:
    """Look for a data set in each folder of `places`; if none holds it, download it into the cache.

    Args:
        name: The name that users open the set by.
        address: The URL of the folder that holds the published files.
        files: The names of the published files.
        read: A folder -> the contents of the set's files; or None, and the reason why the folder does not hold the set.
        check: The downloaded files by name -> their contents; raises DataError if they are not the official ones.

    Returns:
        The contents, and notes for the user.

    Raises:
        DataNotFoundError: No folder holds the set, and it cannot be downloaded.
        DataError: From `check`.
    """
    reasons: list[str] = []
    for folder in places(name):
        contents, reason = read(folder)
        if contents is not None:
            return contents, []
        reasons.append(f"{folder}: {reason}")
    try:
        downloaded = {file: _download(f"{address}/{file}") for file in files}
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", None) or first_line(error)
        raise DataNotFoundError(
            f"data.source={name}: not on this machine ({', '.join(reasons)}), and {address} could not be reached "
            f"({cause}); put {listed(files)} into a folder and set the environment variable VITREOUS_DATA to it"
        ) from error
    contents = check(downloaded)
    return contents, _keep(downloaded, cache_folder() / name)


def check_official(name: str, where: str, content: bytes, sha256: str) -> None:
    """Raise DataError if the content of a file of the set `name` does not have the official SHA-256."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(
            f"{where}: not the official file of {name} (its SHA-256 differs); "
            "set VITREOUS_DATA to a folder with the official files"
        )


def places(name: str) -> list[Path]:
    """Return the folders to look for a named data set, in this order.

    `$VITREOUS_DATA/<name>` and `$VITREOUS_DATA` where the variable is set, the cache, and `/usr/share/datasets`.
    """
    own = os.environ.get("VITREOUS_DATA")
    folders = [Path(own) / name, Path(own)] if own else []
    return [*folders, cache_folder() / name, Path("/usr/share/datasets") / name]


def _download(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=_DOWNLOAD_TIMEOUT_S) as reply:
        return reply.read(MAX_BYTES)


def _keep(downloaded: Mapping[str, bytes], folder: Path) -> list[str]:
    """Store downloaded files in the cache. If that fails, the run continues, and a note says so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in downloaded.items():
            atomic.write_bytes(folder / file, content)
    except OSError as error:
        reason = error.strerror or error
        return [f"{folder}: downloaded files could not be stored ({reason}); the next run downloads them again"]
    return []
