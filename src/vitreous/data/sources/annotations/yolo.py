"""A folder with `images/` and `labels/` in the layout of YOLO -> Export: the classes of its boxes label an image.

An image without a text file, or with an empty one, shows none of the classes, if there is a folder of labels for it.
https://docs.ultralytics.com/datasets/detect
"""

import re
from pathlib import Path

import yaml

from vitreous.data.sources.annotations.export import Entry, Export, read_bytes
from vitreous.data.sources.image_files import images_below
from vitreous.data.sources.spelling import split_of
from vitreous.errors import DataError
from vitreous.wording import printable, printable_error

_MOST_BYTES = 1 << 20
_LISTS = ("classes.txt", "obj.names")


def find_names(folder: Path) -> Path | None:
    """Return the file with the class names in a folder that has labels of YOLO; None if it has none."""
    if not any(inner.is_dir() for inner in (folder / "labels", *folder.glob("*/labels"))):
        return None
    files = [*sorted(folder.glob("*.y*ml")), *(folder / name for name in _LISTS)]
    small = [file for file in files if file.is_file() and file.stat().st_size <= _MOST_BYTES]
    return next((file for file in small if file.name in _LISTS or b"names" in file.read_bytes()), None)


def read_yolo(names_file: Path, folder: Path) -> Export | None:
    """Read the class names from a YAML file or a list, and the text file of each image in an `images` folder.

    The paths in a YAML file are not read: images are those below the folder, and their split is the name of a folder.
    Return the images by their path below the folder; None if the file has no field `names`. Raises DataError if the
    names cannot be read, there are no images, or a text file has another content.
    """
    where, classes = f"data.source={names_file}", _read_names(names_file)
    if classes is None:
        return None
    entries = []
    for image in sorted(images_below(folder)):
        parts = list(image.relative_to(folder).parts)
        if "images" not in parts[:-1]:
            continue
        at = max(position for position, part in enumerate(parts[:-1]) if part == "images")
        subset = next((part for part in parts[:-1] if split_of(re.sub(r"\d+$", "", part))), "")
        labels = folder.joinpath(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt")
        found = _read_labels(labels, classes) if labels.parent.is_dir() else None
        entries.append(Entry(image.relative_to(folder).as_posix(), found, subset))
    if not entries:
        raise DataError(f"{where}: no image in a folder `images` below {folder}; put images/ next to labels/")
    return Export("YOLO labels", entries, tuple(classes.values()))


def _read_names(file: Path) -> dict[int, str] | None:
    where, content = f"data.source={file}", read_bytes(file, _MOST_BYTES)
    try:
        text = content.decode("utf-8-sig")
        names = text.splitlines() if file.name in _LISTS else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{where}: cannot be read ({printable_error(error)}); correct it") from error
    if not isinstance(names, list) and not (isinstance(names, dict) and "names" in names):
        return None
    names = names["names"] if isinstance(names, dict) else names
    found = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(found, dict) or not all(
        isinstance(k, int) and isinstance(v, str | int) for k, v in found.items()
    ):
        raise DataError(f"{where}: has no list of class names; write them as `names: [cat, dog]`")
    return {number: str(name) for number, name in found.items()}


def _read_labels(file: Path, classes: dict[int, str]) -> tuple[str, ...]:
    """Return the names of the classes that begin the lines of a text file."""
    if not file.is_file():
        return ()
    text = read_bytes(file).decode("utf-8-sig", "replace")
    labels: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        first = line.split()[0] if line.strip() else None
        if first is None:
            continue
        if not re.fullmatch(r"[0-9]{1,9}", first) or int(first) not in classes:
            rule = f"must begin with the number of one of the {len(classes):,} classes"
            raise DataError(f"data.source={file}: line {number}: {printable(first)}: {rule}; correct it")
        labels[classes[int(first)]] = None
    return tuple(labels)
