"""A name (`mnist`, `fashion-mnist`) -> its official four files, wherever they lie or from the public address."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitreous.data.sources import idx
from vitreous.data.sources.official import find_or_fetch
from vitreous.data.sources.source import ArraySource
from vitreous.errors import DataError

_FILES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class IdxSet:
    """One named set.

    Attributes:
        name: What users call it.
        address: Where `<file>.gz` is published.
        classes: The class names, in label order.
        sha256: Of each *unpacked* file: repackaged copies (Debian's, a mirror's) differ in their gzip bytes only.
    """

    name: str
    address: str
    classes: tuple[str, ...]
    sha256: Mapping[str, str]


MNIST = IdxSet(
    name="mnist",
    address="https://ossci-datasets.s3.amazonaws.com/mnist",
    classes=tuple(str(digit) for digit in range(10)),
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
"""Source: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition"."""

FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    address="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    classes=(
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)
"""Source: Xiao, Rasul & Vollgraf 2017 (1708.07747)."""


def open_idx_set(wanted: IdxSet) -> ArraySource:
    """Find or fetch the four files, check them, and read them.

    Looked for in $VITREOUS_DATA/<name>, $VITREOUS_DATA, the user's cache and the system's data sets; what had to be
    fetched is kept in the cache.

    Args:
        wanted: Which set.

    Returns:
        The official training part as `train`, the official test part as `test`.

    Raises:
        DataNotFoundError: It is in none of the places and cannot be fetched.
        DataError: What was fetched is not the set.
    """
    contents, notes = find_or_fetch(
        wanted.name,
        wanted.address,
        [f"{file}.gz" for file in wanted.sha256],
        lambda folder: _read_folder(wanted, folder),
        lambda fetched: _unpack(wanted, fetched),
    )
    parsed = {file: idx.parse(content, file) for file, content in contents.items()}
    labels = [parsed[_FILES[split, "labels"]] for split in ("train", "test")]
    return ArraySource(
        name=wanted.name,
        classes=wanted.classes,
        images=np.concatenate([parsed[_FILES[split, "images"]] for split in ("train", "test")]),
        labels=np.concatenate(labels).astype(np.int64),
        splits=["train"] * len(labels[0]) + ["test"] * len(labels[1]),
        notes=notes,
    )


def _read_folder(wanted: IdxSet, folder: Path) -> tuple[dict[str, bytes] | None, str]:
    """The unpacked files by name, or None and why this folder does not have them."""
    contents = {}
    for file, sha256 in wanted.sha256.items():
        path = next((p for p in (folder / f"{file}.gz", folder / file) if p.is_file()), None)
        if path is None:
            return None, "not there" if not folder.is_dir() else f"no {file}.gz"
        try:
            contents[file] = idx.unpack(path.read_bytes(), path.name)
        except (OSError, DataError) as error:
            return None, str(error)
        # MNIST and its look-alikes share their file names: only the content tells them apart.
        if hashlib.sha256(contents[file]).hexdigest() != sha256:
            return None, f"its {path.name} is not {wanted.name}'s"
    return contents, ""


def _unpack(wanted: IdxSet, fetched: Mapping[str, bytes]) -> dict[str, bytes]:
    """The fetched files, unzipped, by name. Raises DataError where one is not the set's."""
    contents = {file: idx.unpack(fetched[f"{file}.gz"], f"{wanted.address}/{file}.gz") for file in wanted.sha256}
    for file, content in contents.items():
        if hashlib.sha256(content).hexdigest() != wanted.sha256[file]:
            raise DataError(
                f"{wanted.address}/{file}.gz: not the file {wanted.name} is known by; set VITREOUS_DATA to a copy"
            )
    return contents
