"""A folder of class folders, or of train/, val/, test/ with class folders -> FileSource.

A class folder's images may lie in nested sub-folders. Hidden files, what operating systems leave behind, and files that
are no images by name are passed over; a file that is an image by name alone counts, and is found unreadable later.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitreous.data.sources.paths import PackedPaths
from vitreous.data.sources.source import FileSource, as_text
from vitreous.data.sources.spelling import split_of
from vitreous.errors import DataError, nearest

IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
        *(".jp2", ".j2k", ".avif", ".heic", ".heif", ".pbm", ".pgm", ".ppm", ".pnm", ".psd", ".qoi", ".tga"),
    ]
)
"""What an image file is called, in lower case. Pillow does not read all of them everywhere; what fails is reported."""

_LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "lost+found"})


@dataclass
class _Found:
    paths: PackedPaths
    class_names: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_folder(root: Path) -> FileSource:
    """List the images of every class; none is opened.

    Args:
        root: An existing folder.

    Returns:
        The images sorted by split, class and path; classes sorted by name.

    Raises:
        DataError: No image, images without class folders, one class only, `val/` or `test/` without `train/`, a split
            spelled twice, a class in `val/` or `test/` that `train/` does not have, or a folder that cannot be listed.
    """
    found = _Found(PackedPaths(root))
    try:
        folders = _split_folders(root)
        for split, folder in folders.items() or {"": root}.items():
            _add_classes(found, folder, split)
    except OSError as error:
        raise DataError(f"data.source={error.filename}: could not be read ({error.strerror}); check it") from error
    classes = sorted(
        {name for name, split in zip(found.class_names, found.splits, strict=True) if split in ("", "train")}
    )
    _check_classes(root, folders, classes, found)
    numbers = {name: number for number, name in enumerate(classes)}
    return FileSource(
        name=root.resolve().name or str(root),
        classes=classes,
        paths=found.paths,
        labels=np.array([numbers[name] for name in found.class_names], dtype=np.int64),
        splits=found.splits,
        notes=found.notes,
    )


def is_image_name(name: str) -> bool:
    """Whether a file is called like an image, by its suffix in upper or lower case."""
    return Path(name).suffix.casefold() in IMAGE_SUFFIXES


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of train, val and test, in this order; empty where `root` holds class folders.

    They are splits where all of `root`'s folders are called so: a class may be called `train`, beside `bus` and `car`.
    """
    spelled: dict[str, Path] = {}
    others = []
    for folder in _folders(root):
        split = split_of(folder.name)
        if split is None:
            others.append(folder)
        elif split in spelled:
            raise DataError(
                f"data.source={root}: both {spelled[split].name}/ and {folder.name}/ hold {split}; keep one"
            )
        else:
            spelled[split] = folder
    if not spelled or (others and not {"train", "test"} <= spelled.keys() and not {"train", "val"} <= spelled.keys()):
        return {}
    if others:
        raise DataError(
            f"data.source={root}: {others[0].name}/ stands beside {_listed(spelled)}; "
            "move it elsewhere, or put all classes side by side"
        )
    if "train" not in spelled:
        raise DataError(f"data.source={root}: {_listed(spelled)} but no train/; add it")
    return {split: spelled[split] for split in ("train", "val", "test") if split in spelled}


def _listed(folders: dict[str, Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in folders.values())


def _add_classes(found: _Found, folder: Path, split: str) -> None:
    for class_folder in _folders(folder):
        images = sorted(_images_below(class_folder), key=Path.as_posix)
        # macOS spells umlauts in two characters, others in one: the same class for people.
        name = as_text(unicodedata.normalize("NFC", class_folder.name))
        for image in images:
            found.paths.append(str(image.relative_to(found.paths.root)))
        found.class_names += [name] * len(images)
        found.splits += [split] * len(images)
        if not images:
            found.notes.append(f"{class_folder}: holds no image file; left out")
    num_loose = sum(1 for entry in _entries(folder) if is_image_name(entry.name) and entry.is_file())
    if num_loose and found.paths:
        found.notes.append(f"{folder}: {num_loose} images outside the class folders; left out")


def _check_classes(root: Path, folders: dict[str, Path], classes: list[str], found: _Found) -> None:
    train = folders.get("train", root)
    if not classes:
        loose = sum(1 for entry in _entries(train) if is_image_name(entry.name))
        if loose:
            raise DataError(
                f"data.source={train}: {loose} images but no class folders; give each class a folder of its own"
            )
        raise DataError(f"data.source={train}: holds no image file; give a folder of class folders")
    if len(classes) == 1:
        inner = [folder.name for folder in _folders(next(f for f in _folders(train) if next(_images_below(f), None)))]
        way_out = f"did you mean {train / classes[0]}?" if len(inner) > 1 else "add a folder for each other class"
        raise DataError(f"data.source={train}: only one class, {classes[0]!r}; a classifier needs two; {way_out}")
    for name, split in zip(found.class_names, found.splits, strict=True):
        if split in ("val", "test") and name not in classes:
            raise DataError(
                f"data.source={folders[split] / name}: a class that {folders['train'].name}/ does not have; "
                f"{nearest(name, classes)}"
            )


def _images_below(folder: Path) -> Iterator[Path]:
    """Image files at any depth, each folder visited once: links may lead in circles."""
    # A link to a folder above would bring in the other classes.
    visited = {_identity(parent) for parent in folder.resolve().parents}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if _identity(current) in visited:
            continue
        visited.add(_identity(current))
        for entry in _entries(current):
            if entry.is_dir():
                waiting.append(entry)
            elif is_image_name(entry.name) and (entry.is_file() or entry.is_symlink()):
                yield entry  # a link that leads nowhere too: it is reported as unreadable


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What stands in a folder, sorted by name; without what is hidden or left behind by operating systems."""
    entries = [e for e in folder.iterdir() if not e.name.startswith(".") and e.name.casefold() not in _LEFT_BY_SYSTEMS]
    return sorted(entries, key=lambda entry: entry.name)
