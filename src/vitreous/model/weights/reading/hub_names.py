"""What a user gives as a model -> the name of a repository on the hub, if it is one."""

import re
from pathlib import Path

from vitreous.errors import NotARunError
from vitreous.wording import printable

PREFIX = "hf://"
_NAME = re.compile(r"((?:[\w.-]{1,96}/)?[\w.-]{1,96})(?:@([\w.-]{1,96}))?", re.ASCII)


def name_in(source: str | Path) -> str | None:
    """Return what follows `hf://`; None for a path. A `Path` has one slash less."""
    text = str(source)
    return next((text.removeprefix(each) for each in (PREFIX, PREFIX[:-1]) if text.startswith(each)), None)


def shown(source: str | Path) -> str:
    """Return a path, or `hf://` and a name, as the user wrote it."""
    name = name_in(source)
    return str(source) if name is None else f"{PREFIX}{name}"


def last_part(source: str | Path) -> str:
    """Return the last part of the name of a repository, without the revision; empty for a path."""
    return (name_in(source) or "").partition("@")[0].rpartition("/")[2]


def repository(source: str) -> str:
    """Return the name of a repository that can be written: `organization/name`, without a revision.

    Raises:
        NotARunError: It is not one.
    """
    repo, revision = split(name_in(source) or source)
    if "/" not in repo or revision is not None or name_in(source) is None:
        raise NotARunError(f"to={printable(source)}: is not the name of a repository; write {PREFIX}organization/name")
    return repo


def split(name: str) -> tuple[str, str | None]:
    """Return repository and revision of a name without its prefix. Raises NotARunError if it is not one."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise NotARunError(f"{PREFIX}{name}: is not the name of a repository; write {PREFIX}organization/name")
    return match[1], match[2]
