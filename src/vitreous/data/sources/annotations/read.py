"""A file or folder of a labeling tool -> its images that exist, their labels and splits, and notes on the others."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vitreous.data.sources.annotations.coco import read_coco
from vitreous.data.sources.annotations.cvat import read_cvat
from vitreous.data.sources.annotations.export import Export, Reader, read_json
from vitreous.data.sources.annotations.fiftyone import read_fiftyone
from vitreous.data.sources.annotations.label_studio import read_label_studio
from vitreous.data.sources.annotations.places import find_files
from vitreous.data.sources.annotations.yolo import find_names, read_yolo
from vitreous.data.sources.image_files import is_image_name
from vitreous.data.sources.spelling import split_of
from vitreous.errors import DataError
from vitreous.wording import plural, printable_list

_JSON_READERS: tuple[Reader, ...] = (read_coco, read_label_studio, read_fiftyone)
_FORMATS = {
    ".json": "COCO, Label Studio or FiftyOne", ".xml": "CVAT for images", ".yaml": "YOLO", ".yml": "YOLO",
}  # fmt: skip
_MARKS = re.compile(rb'"(annotations|annotator|classes|data|images|info|labels)"')
"""A field of each JSON format near the beginning of a file, so that others are not parsed."""
_HEAD_BYTES = 1 << 16
_MOST_FILES = 8
"""A folder with more JSON or XML files has one per image."""


@dataclass
class ExportedImages:
    """The images of one or several files; lists have one element per image.

    `paths` are relative to `root`, `labels` are None for images that were not labeled, `splits` are empty if there is
    only one, and `classes` are those that the files declare.
    """

    format: str
    root: Path
    paths: list[str] = field(default_factory=list)
    labels: list[tuple[str, ...] | None] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def is_export_name(name: str) -> bool:
    """Return True if a file name has the suffix of an export."""
    return Path(name).suffix.casefold() in _FORMATS


def read_export(path: Path, root: Path | None = None) -> ExportedImages | None:
    """Read an export, and find its images.

    Args:
        path: A file; or a folder, in which files are recognized by their content.
        root: The folder of the images, which no path may leave. By default the given folder, or that of the file.

    Returns:
        All images that exist; None for a folder without an export that has labels.

    Raises:
        DataError: A file has an unknown or damaged content, a path in it leaves the root, no image exists, or there is
            more than one export for a split.
    """
    if root is not None and not root.is_dir() and not path.is_dir():
        raise DataError(f"data.root={root}: no such folder; use the folder with the images of the export")
    if path.is_dir():
        exports, base = _in_folder(path, root), path
    else:
        export = _read(path, root or path.parent)
        if export is None:
            raise DataError(
                f"data.source={path}: is not in the format of {_FORMATS[path.suffix.casefold()]}; export the labels in "
                "it, or write a table of paths and labels"
            )
        # The images of COCO are next to the folder of its files.
        exports, base = [(path, export)], path.parent.parent if path.parent.name == "annotations" else path.parent
    if not exports:
        return None
    images = ExportedImages(exports[0][1].format, root or base)
    for file, export in exports:
        _add(images, file, export, is_given=root is not None)
    if len(set(images.splits)) == 1:
        images.splits = [""] * len(images.paths)
    if others := _unlisted(images):
        text = f"{plural(len(others), 'image')} that {'is' if len(others) == 1 else 'are'} in the same folder"
        images.notes.append(f"data.source={path}: lists no label for {text} ({printable_list(others, 3)}): left out")
    return images


def _read(path: Path, folder: Path) -> Export | None:
    """Read a file whose images are in a folder; None if its content is of no known format."""
    if path.suffix.casefold() == ".xml":
        return read_cvat(path)
    if path.suffix.casefold() != ".json":
        return read_yolo(path, folder)
    document = read_json(path)
    found = (read(document, f"data.source={path}", folder) for read in _JSON_READERS)
    return next((export for export in found if export is not None), None)


def _in_folder(folder: Path, root: Path | None) -> list[tuple[Path, Export]]:
    """Return the exports in a folder, in `annotations/` and in folders of splits."""
    try:
        names_file = find_names(folder)
        if names_file and (export := read_yolo(names_file, root or folder)):
            return [(names_file, export)]
        splits = [inner for inner in sorted(folder.iterdir()) if split_of(inner.name) and inner.is_dir()]
        files = [file for inner in (folder, folder / "annotations", *splits) for file in _candidates(inner)]
    except OSError as error:
        raise DataError(
            f"data.source={folder}: could not be read ({error.strerror}); check the path and its permissions"
        ) from error
    found: dict[str, tuple[Path, Export]] = {}
    for file in files:
        export = _read(file, root or file.parent)
        if export is None or not any(entry.labels for entry in export.entries):
            continue
        others = (pair for pair in found.values() if pair[1].format != export.format)
        split = _split(_subset(file))
        if other := found.get(split) or next(others, None):
            both = f"{other[0].relative_to(folder)} and {file.relative_to(folder)}"
            raise DataError(
                f"data.source={folder}: {both} both have labels; give the path of one of them instead of the folder"
            )
        found[split] = file, export
    return list(found.values())


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder that may be exports, without the keypoints and captions next to COCO's instances."""
    files = sorted(file for suffix in (".json", ".xml") for file in folder.glob(f"*{suffix}") if file.is_file())
    instances = [file for file in files if file.name.startswith("instances_")]
    for file in instances or (files if len(files) <= _MOST_FILES else ()):
        with file.open("rb") as content:
            if file.suffix == ".xml" or _MARKS.search(content.read(_HEAD_BYTES)):
                yield file


def _add(images: ExportedImages, file: Path, export: Export, *, is_given: bool) -> None:
    """Add the images of a file that exist."""
    where = f"data.source={file}"
    entries = [entry._replace(subset=entry.subset or _subset(file)) for entry in export.entries]
    paths, notes = find_files(where, images.root, file.parent, entries, is_given=is_given)
    missing = [entry.path for entry, path in zip(entries, paths, strict=True) if not path]
    if missing:
        notes.append(f"{where}: left out {plural(len(missing), 'missing image')} ({printable_list(missing, 3)})")
    images.notes += [*(f"{where}: {note}" for note in export.notes), *notes]
    images.classes |= set(export.classes)
    for entry, path in zip(entries, paths, strict=True):
        if path:
            images.paths.append(path)
            images.labels.append(entry.labels)
            images.splits.append(_split(entry.subset))


def _unlisted(images: ExportedImages) -> list[str]:
    """Return the images that are in the same folders as those that are listed, without hidden files."""
    known = set(images.paths)
    folders = {path.rpartition("/")[0] for path in known}
    readable = (inner for inner in folders if os.access(images.root / inner, os.R_OK))
    inside = (f"{inner}/{name}".lstrip("/") for inner in readable for name in os.listdir(images.root / inner))  # noqa: PTH208
    return [path for path in inside if is_image_name(path) and path not in known and Path(path).name[0] != "."]


def _subset(file: Path) -> str:
    """Return the name of the folder of a file if it is a split, or else the last word of its own name."""
    return file.parent.name if split_of(file.parent.name) else file.stem.rpartition("_")[2]


def _split(subset: str) -> str:
    """Return the split of a subset such as `Train` or `val2017`, or an empty string."""
    return split_of(re.sub(r"\d+$", "", subset)) or ""
