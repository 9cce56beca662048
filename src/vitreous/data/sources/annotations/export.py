"""A JSON file -> its content; what every reader of a format returns: the images of an export and their labels."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vitreous.errors import DataError, DataNotFoundError
from vitreous.wording import printable_error, printable_value

MAX_BYTES = 512 << 20
"""Larger files are not read: the content takes up to 20 times the memory. The largest file of COCO 2017 has 448 MB."""


class Entry(NamedTuple):
    """An image in the words of the export, which are of unknown origin.

    Attributes:
        path: The path, address or name of the image.
        labels: Names of its labels, each once; empty if it was labeled with none of them, None if it was not labeled.
        subset: The name of its split or of the folder of its images, if the export says it.
    """

    path: str
    labels: tuple[str, ...] | None
    subset: str = ""


@dataclass(frozen=True)
class Export:
    """What a file says.

    Attributes:
        format: The name of the format, for messages.
        entries: Its images.
        classes: Names of the classes that it declares; empty if it declares none.
        notes: What was not read or is uncertain, without the name of the file.
    """

    format: str
    entries: list[Entry]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Reader = Callable[[object, str, Path], Export | None]
"""The content of a JSON file, the beginning of messages, and the folder of its images -> None for another format."""


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """Read a whole file. Raises DataError if it is unreadable or has more than `most` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DataNotFoundError(f"data.source={path}: cannot be read ({error.strerror}); check the file") from error
    if len(content) > most:
        raise DataError(f"data.source={path}: has over {most >> 20:,} MiB; export the images in several parts")
    return content


def read_json(path: Path) -> object:
    """Read a JSON file. Raises DataError if it is damaged, too large or too deeply nested."""
    content = read_bytes(path)
    try:
        return json.loads(content, object_hook=_needed)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"data.source={path}: not valid JSON ({printable_error(error)}); export it again, or move it elsewhere"
        ) from error


def text_in(item: object, name: str, where: str) -> str:
    """Return a field of a JSON object. Raises DataError, which begins with `where`, if it is not text."""
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise DataError(f"{where}: {name}={printable_value(value)}: must be text; correct it, or export it again")
    return value


def _needed(item: dict[str, Any]) -> dict[str, Any]:
    """Drop the outlines in the annotations of COCO, which are most of the file, while it is parsed."""
    needed = ("image_id", "category_id")
    return {name: item[name] for name in needed} if all(name in item for name in needed) else item
