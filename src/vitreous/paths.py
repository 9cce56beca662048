"""What a user gives as a path -> Path, with `~` replaced by the home folder; a file -> its checksum."""

import hashlib
import os
import re
import sys
from pathlib import Path, PurePath

from vitreous.errors import ConfigError
from vitreous.wording import printable_value

_LONGEST_NAME, _LONGEST_PATH = 255, 4096
"""Bytes that Linux allows for the name of a file, and for a path."""
_DEVICES = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]", re.IGNORECASE)


def expanded(path: str | PurePath) -> Path:
    """Return the path with `~` or `~name` at its beginning replaced by a home folder, where there is one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises RuntimeError for an unknown name


def as_path(argument: str, value: object) -> Path:
    """Check a path from Python, and expand it.

    Raises:
        ConfigError: It is not text or a Path, is blank, too long, or has characters that no file name can have.
    """
    if isinstance(value, str | PurePath) and str(value).strip() and is_possible(str(value)):
        return expanded(value)
    raise ConfigError(f"{argument}={printable_value(value)}: is not a path; give the path of a file or folder")


def is_possible(text: str) -> bool:
    """Return True if a file system could have a file of this name: no null character, no surrogate, not too long."""
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return b"\0" not in name and len(name) < _LONGEST_PATH and max(map(len, name.split(b"/"))) <= _LONGEST_NAME


def portable(stem: str) -> str:
    """Return the name of a file, with `_` before its first dot if Windows reserves the name for a device."""
    base, dot, rest = stem.partition(".")
    return f"{base}_{dot}{rest}" if _DEVICES.fullmatch(base.rstrip(" ")) else stem


def sha256(path: Path) -> str:
    """Return the SHA-256 of the content of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the user's cache folder: `$XDG_CACHE_HOME/vitreous` if that is set, else the platform's usual place."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "vitreous"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vitreous"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vitreous" / "Cache"
    return Path.home() / ".cache" / "vitreous"


def cache_folder_of(name: str) -> Path:
    """Return the folder for one kind of cached files, in `$VITREOUS_CACHE` if that is set, else in `cache_folder`."""
    given = os.environ.get("VITREOUS_CACHE")
    return (expanded(given).absolute() if given else cache_folder()) / name
