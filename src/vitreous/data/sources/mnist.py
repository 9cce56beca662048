"""A name (`mnist`, `fashion-mnist`) -> its official four files, wherever they lie or from the public address."""

import hashlib
import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np

from vitreous import atomic
from vitreous.data.sources import idx
from vitreous.data.sources.source import ArraySource
from vitreous.errors import DataError, DataNotFoundError

_FILES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
_DOWNLOAD_TIMEOUT_S = 30


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
    refused: list[str] = []
    for folder in places(wanted.name):
        contents, reason = _read_folder(wanted, folder)
        if contents is not None:
            return _assemble(wanted, contents)
        refused.append(f"{folder} ({reason})")
    try:
        zipped = {file: _fetch(f"{wanted.address}/{file}.gz") for file in wanted.sha256}
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", None) or error
        raise DataNotFoundError(
            f"data.source={wanted.name}: not in {', '.join(refused)}, and {wanted.address} was not reached ({cause}); "
            f"put {', '.join(f'{file}.gz' for file in wanted.sha256)} into a folder and set VITREOUS_DATA to it"
        ) from error
    contents = {file: idx.unpack(content, f"{wanted.address}/{file}.gz") for file, content in zipped.items()}
    for file, content in contents.items():
        if hashlib.sha256(content).hexdigest() != wanted.sha256[file]:
            raise DataError(
                f"{wanted.address}/{file}.gz: not the file {wanted.name} is known by; set VITREOUS_DATA to a copy"
            )
    return _assemble(wanted, contents, notes=_keep(zipped, cache_folder() / wanted.name))


def places(name: str) -> list[Path]:
    """The folders where a named set may lie, in the order they are looked at."""
    own = os.environ.get("VITREOUS_DATA")
    folders = [Path(own) / name, Path(own)] if own else []
    return [*folders, cache_folder() / name, Path("/usr/share/datasets") / name]


def cache_folder() -> Path:
    """This user's cache: $XDG_CACHE_HOME/vitreous where set, else the platform's usual place."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "vitreous"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vitreous"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vitreous" / "Cache"
    return Path.home() / ".cache" / "vitreous"


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


def _fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=_DOWNLOAD_TIMEOUT_S) as reply:
        return reply.read(idx.MAX_BYTES)


def _keep(zipped: Mapping[str, bytes], folder: Path) -> list[str]:
    """Store what was fetched; where that fails the run goes on, and the note says so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in zipped.items():
            atomic.write_bytes(folder / f"{file}.gz", content)
    except OSError as error:
        return [
            f"{folder}: the fetched files could not be kept ({error.strerror or error}); they will be fetched again"
        ]
    return []


def _assemble(wanted: IdxSet, contents: Mapping[str, bytes], notes: Sequence[str] = ()) -> ArraySource:
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
