"""Names of splits, columns and classes -> the names and the order that this project uses."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from difflib import get_close_matches

_SPLITS = {
    "train": ("train", "training", "trn", "learn"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
}
_SPLIT_ENDINGS = ("", "set", "data", "split", "images", "s")

SPLIT_SPELLINGS = {
    f"{spelling}{ending}": split
    for split, spellings in _SPLITS.items()
    for spelling in spellings
    for ending in _SPLIT_ENDINGS
}
"""Spelling of a split, as `squeeze` returns it -> `train`, `val` or `test`."""

COLUMN_SPELLINGS = {
    "path": ("path", "file", "files", "filename", "filepath", "fname", "image", "images", "imagepath", "imagefile",
             "imagefilename", "imagename", "img", "imgpath", "imgfile", "imgname", "photo", "picture"),
    "label": ("label", "labels", "class", "classes", "classname", "classlabel", "labelname", "target", "targets",
              "category", "categoryname", "y"),
    "split": ("split", "splits", "set", "subset", "partition", "datasplit", "usage"),
    "group": ("group", "groups", "groupid", "person", "personid", "patient", "patientid", "subject", "subjectid",
              "video", "videoid"),
    "weight": ("weight", "weights", "sampleweight"),
}  # fmt: skip
"""Role of a column -> its spellings, as `squeeze` returns them. The first one wins if a table has several."""


def squeeze(text: str) -> str:
    """Return lower-case text without separators: `Image Path`, `image_path` and `IMAGE-PATH` become the same."""
    return "".join(character for character in text.casefold() if character not in " _-.\t")


def split_of(text: str) -> str | None:
    """Return `train`, `val` or `test` for a common spelling of it, else None."""
    return SPLIT_SPELLINGS.get(squeeze(text))


def columns_of(role: str, columns: Sequence[str]) -> list[int]:
    """Find the columns that may have a role; a column with exactly the role's name is the only result.

    Return their positions: none, one, or several if it is ambiguous.
    """
    names = [squeeze(column) for column in columns]
    if names.count(role) == 1:
        return [names.index(role)]
    return [position for position, name in enumerate(names) if name in COLUMN_SPELLINGS[role]]


def nearest_column(role: str, columns: Sequence[str]) -> str | None:
    """Return the column with the name most similar to a spelling of the role, or None if none is similar."""
    by_name = {squeeze(column): column for column in reversed(columns)}
    for spelling in COLUMN_SPELLINGS[role]:
        if near := get_close_matches(spelling, by_name, n=1, cutoff=0.7):
            return by_name[near[0]]
    return None


def in_class_order(names: Iterable[str]) -> list[str]:
    """Sort class names: by value if all of them are numbers, such as 0, 90, 180 or 2.5, else by character."""
    names = sorted(names)
    if all(re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{0,18})?", name) for name in names):
        names.sort(key=Decimal)
    return names


def did_you_mean(got: str, known: Iterable[str], *, otherwise: str) -> str:
    """Return `did you mean NAME?` with the most similar known name, or `otherwise` if none is similar."""
    near = get_close_matches(got, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else otherwise
