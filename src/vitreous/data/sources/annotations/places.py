"""Paths in an export, which another machine may have written -> image files below one folder.

No path leaves that folder. Without `data.root`, absolute paths and addresses are refused. With it, such a path is
looked up in that folder by its last parts.
"""

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from vitreous.data.sources.annotations.export import Entry
from vitreous.errors import DataError
from vitreous.wording import plural, printable

_OUTSIDE = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):(?://[^/]*)?|~)?(?=[/\\])|data:")
"""The beginning of an absolute path, of a path on a Windows drive, and of an address up to the path in it."""
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts in front of the name of an uploaded file."""
_NUM_TRIED, _DEEPEST = 16, 16
_INNER = ("", "images", "data")

Parts = tuple[str, ...]


def find_files(where: str, root: Path, folder: Path, entries: Sequence[Entry], *, is_given: bool) -> tuple[
    list[str], list[str]]:  # fmt: skip
    """Find the images of a file in the folder that most of a few of them are in.

    Args:
        where: How messages begin, e.g. `data.source=export.json`.
        root: The folder that no path may leave.
        folder: The folder of the file, in the root.
        entries: The images.
        is_given: Whether the user named the root.

    Returns:
        The path of each image relative to the root, or an empty string if there is no such file; and notes.

    Raises:
        DataError: A path leaves the root, or none of a few exists.
    """
    found, notes = [""] * len(entries), []
    by_subset: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        by_subset.setdefault(entry.subset, []).append(number)
    for subset, members in by_subset.items():
        parts = [_parts(f"{where}: image", entries[number].path, is_given=is_given) for number in members]
        bases = [root] if is_given else list(_bases(root, folder, subset))
        base, skip = _best(where, bases, parts, entries[members[0]].path)
        if skip != 0:
            left_out = "folders and Label Studio's prefix" if skip is None else f"the first {plural(skip, 'part')}"
            notes.append(f"{where}: images are read from {base}, without {left_out} of their paths")
        inner = Path(os.path.relpath(base, root)).as_posix()
        for number, one in zip(members, parts, strict=True):
            path = posixpath.normpath(f"{inner}/{_spelled(one, skip)}")
            found[number] = path if os.path.isfile(root / path) else ""  # noqa: PTH113  # False for any name
    return found, notes


def _parts(place: str, path: str, *, is_given: bool) -> Parts:
    """Return the parts of a path below the root, which are all if it is relative."""
    outside = _OUTSIDE.match(path)
    if outside and not is_given:
        raise DataError(
            f"{place}={printable(path)}: is an absolute path or an address; copy the images to a folder of this "
            "machine, and set data.root to it"
        )
    if outside:
        path = unquote(path[outside.end() :].partition("?")[0]) if outside[1] else path[outside.end() :]
    plain = posixpath.normpath("/".join(part for part in re.split(r"[/\\]+", path) if part))
    if plain in (".", "..") or plain.startswith("../"):
        raise DataError(f"{place}={printable(path)}: is not a path inside the folder of the images; correct it")
    return tuple(plain.split("/"))


def _bases(root: Path, folder: Path, subset: str) -> Iterator[Path]:
    """Yield the folders in which tools put images, the folder of the file first."""
    is_plain = subset not in (".", "..") and re.fullmatch(r"[^/\\\0]{1,255}", subset)
    for base in dict.fromkeys((folder, root)):
        for inner in (*_INNER, *(f"{inner}/{subset}" for inner in _INNER if is_plain)):
            candidate = base / inner.lstrip("/")
            if candidate.is_dir():
                yield candidate


def _best(where: str, bases: Sequence[Path], parts: Sequence[Parts], first: str) -> tuple[Path, int | None]:
    """Return the folder with the most of a few images, and how many of the first parts of their paths to leave out."""
    tried = [parts[n] for n in np.unique(np.linspace(0, len(parts) - 1, _NUM_TRIED, dtype=np.int64)).tolist()]
    skips = [*range(min(_DEEPEST, max(map(len, parts)))), None]
    counts = {
        (base, skip): sum(os.path.isfile(base / _spelled(one, skip)) for one in tried)  # noqa: PTH113
        for base in bases for skip in skips
    }  # fmt: skip
    num_distinct = len(set(parts))
    for (base, skip), count in sorted(counts.items(), key=lambda item: -item[1]):
        # Without their folders, different images may have the same name.
        if count and len({_spelled(one, skip) for one in parts}) == num_distinct:
            return base, skip
    raise DataError(
        f"{where}: tried {plural(len(tried), 'image')}, and none is where the export says (the first is "
        f"{printable(first)}); put the images into {bases[0]}, or set data.root to their folder"
    )


def _spelled(parts: Parts, skip: int | None) -> str:
    """Return a path without its first parts, or for None only its name, without the prefix of an upload."""
    return _UPLOADED.sub("", parts[-1], count=1) if skip is None else "/".join(parts[min(skip, len(parts) - 1) :])
