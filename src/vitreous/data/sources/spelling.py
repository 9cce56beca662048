"""What people call splits and columns -> what this project calls them."""

from collections.abc import Sequence
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
"""Spellings, as `squeeze` leaves them, of `train`, `val` and `test`."""

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
"""Spellings, as `squeeze` leaves them, of a table's columns; the first of each is the one that wins over others."""


def squeeze(text: str) -> str:
    """Lower case, without what people set between words: `Image Path`, `image_path` and `IMAGE-PATH` are the same."""
    return "".join(character for character in text.casefold() if character not in " _-.\t")


def split_of(text: str) -> str | None:
    """`train`, `val` or `test` for any of their spellings, else None."""
    return SPLIT_SPELLINGS.get(squeeze(text))


def columns_of(role: str, columns: Sequence[str]) -> list[int]:
    """Which columns are called like a role; one that has the very name of the role stands alone.

    Args:
        role: `path`, `label`, `split`, `group` or `weight`.
        columns: A table's headings.

    Returns:
        Their positions: none, one, or several that cannot be told apart.
    """
    names = [squeeze(column) for column in columns]
    if names.count(role) == 1:
        return [names.index(role)]
    return [position for position, name in enumerate(names) if name in COLUMN_SPELLINGS[role]]


def nearest_column(role: str, columns: Sequence[str]) -> str | None:
    """The column whose name is nearest to one that the role is known by; None where none is near."""
    by_name = {squeeze(column): column for column in reversed(columns)}
    for spelling in COLUMN_SPELLINGS[role]:
        if near := get_close_matches(spelling, by_name, n=1, cutoff=0.7):
            return by_name[near[0]]
    return None
