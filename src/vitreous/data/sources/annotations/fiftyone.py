"""The content of a FiftyOne `labels.json` (FiftyOneImageClassificationDataset) -> Export, with one or several labels.

Images are named by their path in the folder `data`, without suffix.
https://docs.voxel51.com/user_guide/export_datasets.html
"""

from pathlib import Path

from vitreous.data.sources.annotations.export import Entry, Export, text_in
from vitreous.data.sources.image_files import images_below
from vitreous.errors import DataError
from vitreous.wording import plural, printable, printable_value


def read_fiftyone(document: object, where: str, folder: Path) -> Export | None:
    """Read `classes` and `labels`, and find the files in `folder/data`, or else in the folder.

    Return the images with suffix, by their path in `folder`; None if the content is not of this format. Raises
    DataError if a label is not one of the classes, or two files differ only in their suffix.
    """
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict) or "classes" not in document:
        return None
    classes = document["classes"]
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        return None
    inner = folder / "data" if (folder / "data").is_dir() else folder
    files: dict[str, str] = {}
    for file in images_below(inner):
        path = file.relative_to(folder).as_posix()
        other = files.setdefault(file.relative_to(inner).with_suffix("").as_posix(), path)
        if other != path:
            raise DataError(f"{where}: {printable(other)} and {printable(path)} have the same name in it; rename one")
    entries, num_confident = [], 0
    for name, target in document["labels"].items():
        place = f"{where}: labels[{printable(name)}]"
        targets = target if isinstance(target, list) else [target]
        labels = None if target is None else tuple(dict.fromkeys(_label(one, classes, place) for one in targets))
        entries.append(Entry(files.get(name.replace("\\", "/"), name), labels))
        num_confident += any(isinstance(one, dict) and one.get("confidence") is not None for one in targets)
    note = f"{plural(num_confident, 'image')} with confidences, as predictions have; they are read as true labels"
    return Export("FiftyOne labels", entries, tuple(classes or ()), (note,) if num_confident else ())


def _label(target: object, classes: list[str] | None, place: str) -> str:
    """Return the name of a label: text, a number of a class, or an object that has one as its `label`."""
    found = target.get("label") if isinstance(target, dict) else target
    if isinstance(found, int) and not isinstance(found, bool) and classes:
        if not 0 <= found < len(classes):
            raise DataError(
                f"{place}: label={printable_value(found)}: no such class; use 0 to {len(classes) - 1}, or its name"
            )
        return classes[found]
    return text_in({"label": found}, "label", place)
