"""A folder of class folders, or of train/, val/, test/ with class folders -> FileSource.

The images of a class may be in nested subfolders.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitreous.data.sources.image_files import count_loose, count_outputs, folders_in, images_below
from vitreous.data.sources.paths import PackedPaths
from vitreous.data.sources.source import SPLITS, FileSource, as_text
from vitreous.data.sources.spelling import did_you_mean, in_class_order, split_of
from vitreous.errors import DataError
from vitreous.wording import listed, plural, printable


@dataclass
class _Images:
    """The images found so far, and warnings for the user."""

    paths: PackedPaths
    class_names: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_folder(root: Path) -> FileSource:
    """List the images of every class; no image is opened.

    Images are sorted by split, class and path; classes by name, or by value if all names are numbers. Raises DataError
    for no images, no class folders, only one class, no `train/` next to `val/` or `test/`, a split that occurs twice, a
    class in `val/` or `test/` that `train/` does not have, or an unreadable folder.
    """
    images = _Images(PackedPaths(root))
    with _readable():
        if num_outputs := count_outputs(root):
            images.notes.append(f"{root}: ignored {plural(num_outputs, 'run folder')} of vitreous")
        folders = _split_folders(root)
        for split, folder in folders.items() or {"": root}.items():
            _add_classes(images, folder, split)
        if folders:
            images.notes += _on_loose(root, "the folders of the splits")
    classes = in_class_order(
        {name for name, split in zip(images.class_names, images.splits, strict=True) if split in ("", "train")}
    )
    _check_classes(root, folders, classes, images)
    numbers = {name: number for number, name in enumerate(classes)}
    return FileSource(
        name=root.resolve().name or str(root),
        classes=tuple(classes),
        paths=images.paths,
        labels=np.array([numbers[name] for name in images.class_names], dtype=np.int64),
        splits=np.array(images.splits),
        notes=tuple(images.notes),
    )


def open_unlabeled(root: Path) -> FileSource:
    """List all images of a folder at any depth, without labels; `train/`, `val/` and `test/` are splits.

    Raises DataError if there are no images, no `train/` next to `val/` or `test/`, or an unreadable folder.
    """
    images = _Images(PackedPaths(root))
    with _readable():
        folders = _split_folders(root)
        if folders:
            images.notes += _on_loose(root, "the folders of the splits")
        for split, folder in folders.items() or {"": root}.items():
            paths = sorted(images_below(folder), key=Path.as_posix)
            for path in paths:
                images.paths.append(path.relative_to(root).as_posix())
            images.splits += [split] * len(paths)
    if not images.paths:
        raise DataError(f"data.source={root}: holds no image file; use a folder of images")
    return FileSource(
        name=root.resolve().name or str(root),
        classes=("image",),
        paths=images.paths,
        labels=np.zeros(len(images.splits), dtype=np.int64),
        splits=np.array(images.splits),
        notes=tuple(images.notes),
        task_reason="the folder has no class folders",
        is_unlabeled=True,
    )


def has_class_folders(root: Path) -> bool:
    """Return True if the images to train on are in at least two class folders, and none next to these."""
    with _readable():
        train = _split_folders(root).get("train", root)
        return not count_loose(train) and sum(any(images_below(folder)) for folder in folders_in(train)) > 1


@contextmanager
def _readable() -> Iterator[None]:
    """Turn an error of the file system into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"data.source={error.filename}: could not be read ({error.strerror}); check the path and its permissions"
        ) from error


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of train, val and test, in this order; none if `root` holds class folders.

    Folders are splits only if all of them have names of splits: next to `bus` and `car`, `train` is a class, but `test`
    is rejected, since it is rarely one.
    """
    splits: dict[str, Path] = {}
    others = []
    for folder in folders_in(root):
        split = split_of(folder.name)
        if split is None:
            others.append(folder)
        elif split in splits:
            raise DataError(
                f"data.source={root}: {splits[split].name}/ and {folder.name}/ are both the {split} split; "
                "merge them or rename one"
            )
        else:
            splits[split] = folder
    names = listed([f"{folder.name}/" for folder in splits.values()])
    if others and splits and "train" not in splits:
        raise DataError(
            f"data.source={root}: {names} among the class folders ({_names(others)}); put the class folders into "
            "train/ if these are held-out images, or use another name if it is a class"
        )
    if not splits or (others and len(splits) == 1):
        return {}
    if others:
        raise DataError(
            f"data.source={root}: {others[0].name}/ is neither a split nor in one, but {names} are splits; "
            "move it elsewhere, or into a split if it is a class"
        )
    if "train" not in splits:
        raise DataError(f"data.source={root}: has {names} but no train/; add train/ with the training images")
    return {split: splits[split] for split in SPLITS if split in splits}


def _add_classes(images: _Images, folder: Path, split: str) -> None:
    """Add the images of each class folder in a folder."""
    nested = []
    for class_folder in folders_in(folder):
        paths = sorted(images_below(class_folder), key=Path.as_posix)
        # macOS writes an umlaut as two characters, other systems as one; both spell the same class.
        name = unicodedata.normalize("NFC", as_text(class_folder.name))
        for path in paths:
            images.paths.append(path.relative_to(images.paths.root).as_posix())
        images.class_names += [name] * len(paths)
        images.splits += [split] * len(paths)
        if not paths:
            images.notes.append(f"{class_folder}: ignored, because it holds no image file")
        elif all(path.parent != class_folder for path in paths):
            nested.append(class_folder)
    if split and split not in images.splits:
        images.notes.append(f"{folder}: ignored, because it has no class folder with images")
    images.notes += _on_hierarchy(folder, nested)
    if images.paths:
        images.notes += _on_loose(folder, "the class folders")


def _on_loose(folder: Path, inside: str) -> Iterator[str]:
    """Yield a note if there are images directly in a folder, outside those that are read."""
    if num_loose := count_loose(folder):
        yield f"{folder}: ignored {plural(num_loose, 'image')} outside {inside}"


def _on_hierarchy(folder: Path, nested: Iterable[Path]) -> Iterator[str]:
    """Yield a note if class folders whose images are all nested hold several folders, which may be meant as classes."""
    inner = {class_folder: folders_in(class_folder) for class_folder in nested}
    nested = [class_folder for class_folder, folders in inner.items() if len(folders) > 1]
    if nested:
        inside = sorted({entry.name for class_folder in nested for entry in inner[class_folder]})
        what = ("class", "it holds") if len(nested) == 1 else ("classes", "they hold")
        yield (
            f"{folder}: read as the {what[0]} {_names(nested)}, although {what[1]} only folders ({_names(inside)}); if "
            "those are the classes, move them one level up"
        )


def _names(folders: Iterable[Path | str]) -> str:
    """Return the names of folders, each with a slash."""
    return listed([f"{printable(Path(folder).name)}/" for folder in folders])


def _check_classes(root: Path, folders: dict[str, Path], classes: list[str], images: _Images) -> None:
    """Raise DataError if there are fewer than two classes, or one in `val/` or `test/` that `train/` does not have."""
    train = folders.get("train", root)
    if not classes:
        if num_loose := count_loose(train):
            raise DataError(
                f"data.source={train}: {plural(num_loose, 'image')} but no class folders; "
                "put the images of each class into a folder with its name; `predict` and `pretrain` need no classes"
            )
        raise DataError(f"data.source={train}: holds no image file; use a folder with one folder of images per class")
    if len(classes) == 1:
        class_folder = next(folder for folder in folders_in(train) if next(images_below(folder), None))
        while len(inner := folders_in(class_folder)) == 1 and not count_loose(class_folder):
            class_folder = inner[0]
        way_out = f"did you mean {class_folder}?" if len(inner) > 1 else "add a folder for each other class"
        raise DataError(f"data.source={train}: only one class, {classes[0]!r}; a classifier needs two; {way_out}")
    known = set(classes)
    for name, split in zip(images.class_names, images.splits, strict=True):
        if split in ("val", "test") and name not in known:
            folder = folders[split] / name
            way_out = did_you_mean(name, classes, otherwise="add it there, or move the folder elsewhere")
            if set(images.class_names[images.splits.index(split) :]).isdisjoint(classes):
                way_out = f"if its images have no known class, move {folders[split].name}/ elsewhere and use "
                way_out += "`vitreous predict`"
            raise DataError(f"data.source={folder}: {folders['train'].name}/ has no class of this name; {way_out}")
