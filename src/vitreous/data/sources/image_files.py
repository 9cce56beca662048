"""A folder -> the image files in it at any depth, and its subfolders.

Hidden files, files that operating systems leave behind, and run folders are ignored, because `vitreous train .` writes
these next to the classes. A file with an image suffix counts even if it turns out to be unreadable later.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
        *(".jp2", ".j2k", ".avif", ".heic", ".heif", ".pbm", ".pgm", ".ppm", ".pnm", ".psd", ".qoi", ".tga"),
    ]
)
"""Suffixes of image files, in lower case. Not every Pillow reads all of them; images that fail are reported."""

ARRAY_SUFFIXES = frozenset([".npy", ".npz"])
"""Suffixes of files that are images only in a folder without image files; next to those, they hold something else."""

_LEFT_BY_SYSTEMS = frozenset({
    "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found", "@eadir",
    "#recycle",
})  # fmt: skip
"""Names in lower case. Network drives of Synology keep thumbnails of photos in `@eaDir`."""

OUTPUT_MARKERS = ("records.jsonl", "series.json")
"""Every run folder has the first of these files from its start, every series folder the second."""


def is_image_name(name: str) -> bool:
    """Return True if a file name has an image suffix, in upper or lower case."""
    return Path(name).suffix.casefold() in IMAGE_SUFFIXES


def count_loose(folder: Path) -> int:
    """Count the images directly in a folder."""
    return sum(is_image_name(entry.name) and not _is_folder(entry) for entry in _scan(folder))


def images_below(folder: Path) -> Iterator[Path]:
    """Yield the image files at any depth, or arrays if there are none, except those in run folders."""
    images = _files_below(folder, IMAGE_SUFFIXES)
    first = next(images, None)
    yield from _files_below(folder, ARRAY_SUFFIXES) if first is None else itertools.chain([first], images)


def _files_below(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Yield the files with one of these suffixes; each folder is visited once, because links may form a circle."""
    # A link to a folder above would add the images of the other classes.
    visited = {_identity(parent) for parent in folder.resolve().parents}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if _identity(current) in visited:
            continue
        visited.add(_identity(current))
        for entry in _entries(current):
            path = current / entry.name
            if _is_folder(entry):
                if not _is_output(path):
                    waiting.append(path)
            elif path.suffix.casefold() in suffixes and (entry.is_symlink() or entry.is_file()):
                yield path  # including broken links, which are later reported as unreadable


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_output(folder: Path) -> bool:
    """Return True for the folder of a run or of a series."""
    return any((folder / name).is_file() for name in OUTPUT_MARKERS)


def _num_outputs(folder: Path) -> int:
    """Return the number of run and series folders that a folder consists of: 1 for one of them, 0 for all others."""
    if _is_output(folder):
        return 1
    count = 0
    for entry in _scan(folder):
        if not _is_folder(entry) or not _is_output(folder / entry.name):
            return 0
        count += 1
    return count


def count_outputs(folder: Path) -> int:
    """Return the number of run and series folders in a folder, also of those in folders that hold nothing else."""
    return sum(_num_outputs(folder / entry.name) for entry in _scan(folder) if _is_folder(entry))


def folders_in(folder: Path) -> list[Path]:
    """Return the subfolders, without run folders and folders that hold nothing else."""
    inner = [folder / entry.name for entry in _entries(folder) if _is_folder(entry)]
    return [path for path in inner if not _num_outputs(path)]


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Return what `_scan` yields, sorted by name."""
    return sorted(_scan(folder), key=lambda entry: entry.name)


def _scan(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Yield the entries of a folder, without hidden files and those that operating systems add.

    An entry knows if it is a folder. To ask the system for each file again would be slow on a network drive.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.casefold() not in _LEFT_BY_SYSTEMS:
                yield entry


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False
