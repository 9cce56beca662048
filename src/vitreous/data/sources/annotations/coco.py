"""The content of a COCO file -> Export: the categories of all annotations of an image are its labels.

An image without annotations shows none of the categories. https://cocodataset.org/#format-data
"""

from pathlib import Path

from vitreous.data.sources.annotations.export import Entry, Export, text_in
from vitreous.errors import DataError
from vitreous.wording import plural, printable, printable_value


def read_coco(document: object, where: str, folder: Path) -> Export | None:
    """Read `images`, `annotations` and `categories`; None if one of them is missing.

    Raises DataError if a field is missing, two images or categories have the same id or name, or a category is unknown.
    """
    if not isinstance(document, dict):
        return None
    if not all(isinstance(document.get(name), list) for name in ("images", "annotations", "categories")):
        return None
    names = _by_id(document["categories"], "name", f"{where}: categories")
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise DataError(f"{where}: categories: name={printable(twice)}: two categories have it; rename one")
    paths = _by_id(document["images"], "file_name", f"{where}: images")
    labels: dict[object, dict[str, None]] = {key: {} for key in paths}
    num_unknown = 0
    for number, annotation in enumerate(document["annotations"]):
        category, image = (
            _id(annotation, name, f"{where}: annotations", number) for name in ("category_id", "image_id")
        )
        if category not in names:
            raise DataError(
                f"{where}: annotations[{number}]: category_id={printable_value(category)}: not one of the "
                f"{plural(len(names), 'category', 'categories')}; correct it, or export it again"
            )
        if image in labels:
            labels[image][names[category]] = None
        num_unknown += image not in labels
    entries = [Entry(path, tuple(labels[key])) for key, path in paths.items()]
    note = f"left out {plural(num_unknown, 'annotation')} of images that are not in the list"
    return Export("COCO annotations", entries, tuple(names.values()), (note,) if num_unknown else ())


def _by_id(items: list[object], name: str, where: str) -> dict[object, str]:
    """Return a field of each item by its id."""
    found: dict[object, str] = {}
    for number, item in enumerate(items):
        key = _id(item, "id", where, number)
        if key in found:
            raise DataError(f"{where}[{number}]: id={printable_value(key)}: is not the first one; give each its own id")
        found[key] = text_in(item, name, f"{where}[{number}]")
    return found


def _id(item: object, name: str, where: str, number: int) -> int | float | str:
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, int | float | str):
        raise DataError(f"{where}[{number}]: {name}={printable_value(value)}: must be a number or text; correct it")
    return value
