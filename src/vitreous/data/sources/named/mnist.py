"""A name (`mnist`, `fashion-mnist`) -> its four official files, found on this machine or downloaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitreous.data.sources.named import idx
from vitreous.data.sources.named.official import check_official, find_or_download
from vitreous.data.sources.source import ArraySource
from vitreous.errors import DataError

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class IdxSet:
    """A data set that is published as four idx files.

    The address is that of the folder that holds each `<file>.gz`. The SHA-256 is that of each *unpacked* file, by name;
    copies such as Debian's are gzipped differently.
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
    classes=("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)
"""Source: Xiao, Rasul & Vollgraf 2017 (1708.07747)."""


def open_idx_set(wanted: IdxSet) -> ArraySource:
    """Find or download the four files, check them, and read them. Raises as `find_or_download` does.

    The official training set is `train`, the official test set `test`.
    """
    contents, notes = find_or_download(
        wanted.name,
        wanted.address,
        [f"{file}.gz" for file in wanted.sha256],
        lambda folder: _read_folder(wanted, folder),
        lambda downloaded: {
            file: _unpack(wanted, file, downloaded[f"{file}.gz"], f"{wanted.address}/{file}.gz")
            for file in wanted.sha256
        },
    )
    images, labels, test_images, test_labels = (idx.parse(contents[file], file) for file in _FILES)
    return ArraySource(
        name=wanted.name,
        classes=wanted.classes,
        images=np.concatenate([images, test_images]),
        labels=np.concatenate([labels, test_labels]).astype(np.int64),
        splits=np.repeat(["train", "test"], [len(labels), len(test_labels)]),
        notes=tuple(notes),
    )


def _read_folder(wanted: IdxSet, folder: Path) -> tuple[dict[str, bytes] | None, str]:
    """Return the unpacked files by name, or None and the reason why the folder does not hold this set."""
    contents = {}
    for file in wanted.sha256:
        path = next((p for p in (folder / f"{file}.gz", folder / file) if p.is_file()), None)
        if path is None:
            return None, f"no {file}.gz" if folder.is_dir() else "no such folder"
        try:
            contents[file] = _unpack(wanted, file, path.read_bytes(), path.name)
        except (OSError, DataError) as error:
            return None, str(error)
    return contents, ""


def _unpack(wanted: IdxSet, file: str, content: bytes, where: str) -> bytes:
    """Unpack and check a file. Raises DataError if it is damaged or not the official one."""
    unpacked = idx.unpack(content, where)
    # MNIST and its variants use the same file names, so only the content identifies the set.
    check_official(wanted.name, where, unpacked, wanted.sha256[file])
    return unpacked
