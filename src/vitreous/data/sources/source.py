"""Where images come from -> Source: samples by number, each with a label, a split, its bytes and its image."""

import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.decoding.decode import Header, ImageLike, decode_image, read_header
from vitreous.data.label_sets import LabelArray, is_multilabel
from vitreous.data.sources.paths import PackedPaths
from vitreous.errors import DecodeError

SPLITS = ("train", "val", "test")
FIXED_TRAIN, DROPPED = "fixed", "drop"
"""Splits that corrections give: in `train` and never drawn for another split, and left out."""

MAX_FILE_BYTES = 1 << 30
"""Larger files are not read as an image."""

Texts = Shaped[np.ndarray, "samples"]
"""An array of short strings, one per sample, e.g. its split."""


@dataclass(kw_only=True, eq=False, repr=False)
class Source(ABC):
    """Samples numbered from 0 to `len(source) - 1`; an image is decoded only when it is requested.

    Attributes:
        name: The name of the set for messages and reports, e.g. `fashion-mnist` or the name of its folder.
        classes: The class names; a label is an index into them.
        labels: Class indices, `[n]`, each in [0, len(classes)); or for a multi-label set, which classes each sample
            has, bool `[n, classes]`.
        splits: The split that the set gives each sample, `[n]`: `train`, `val`, `test`, or an empty string for none.
        groups: The name of each sample's group, `[n]`. Samples of one group (a person, a video) all go to the same
            split; an empty string means that the sample belongs to no group. None if the set has no groups.
        weights: The weight of each sample in the training loss, `[n]`, at least 0. None if all weights are equal.
        test_ratio: The fraction of samples to use for testing if the set has no test split; None for the default.
        notes: Warnings for the user, one sentence each.
        format: The format of the labeling tool that exported the set, e.g. `COCO annotations`; empty for other sets.
        task_reason: Why the set is read as multi-label or not, one clause; empty if there was no choice.
        is_unlabeled: True if nothing is known but the images; they all have the only class then.
        uncorrected: The same samples before corrections were applied to labels and splits; None if none were.
        corrections: Rows of the file of these corrections.
    """

    name: str
    classes: tuple[str, ...]
    labels: LabelArray
    splits: Texts
    groups: Texts | None = None
    weights: NDArray[np.float64] | None = None
    test_ratio: float | None = None
    notes: tuple[str, ...] = ()
    format: str = ""
    task_reason: str = ""
    is_unlabeled: bool = False
    uncorrected: "Source | None" = None
    corrections: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        self.classes, self.notes = tuple(self.classes), tuple(self.notes)
        self.labels, self.splits = np.asarray(self.labels), np.asarray(self.splits, dtype="<U5")
        self.labels = self.labels.astype(np.bool_ if self.is_multilabel else np.int64, copy=False)

    def __len__(self) -> int:
        return len(self.labels)

    def reorder_classes(self, classes: Sequence[str]) -> None:
        """Number the classes in this order, that of an existing run; do nothing if they are other classes.

        Older versions ordered classes that are numbers by character.
        """
        if tuple(classes) == self.classes or set(classes) != set(self.classes):
            return
        if self.is_multilabel:
            self.labels = self.labels[:, [self.classes.index(name) for name in classes]]
        else:
            numbers = {name: number for number, name in enumerate(classes)}
            self.labels = np.array([numbers[name] for name in self.classes], dtype=np.int64)[self.labels]
        self.classes = tuple(classes)

    @property
    def title(self) -> str:
        """The name, with the format where it was recognized by content."""
        return titled(self.name, self.format)

    @property
    def is_multilabel(self) -> bool:
        """True if a sample may have several labels, or none."""
        return is_multilabel(self.labels)

    @abstractmethod
    def describe(self, index: int) -> str:
        """Return what identifies the sample in messages: a path, or e.g. `fashion-mnist train[17]`."""

    def key(self, index: int) -> str:
        """Return a name of the sample that does not depend on the place of the data, such as a relative path."""
        return self.describe(index)

    @abstractmethod
    def content(self, index: int) -> bytes:
        """Return the bytes that define the sample: equal bytes, equal image. Raises DecodeError if unreadable."""

    def encoded(self, index: int) -> ImageLike:
        """Return the image in a form that `decode_image` takes. Raises DecodeError if unreadable."""
        return self.content(index)

    def header(self, index: int, content: bytes) -> Header:
        """Read size and color from the sample's `content`, undecoded. Raises DecodeError if it is not an image."""
        return read_header(content, self.describe(index))

    def image(self, index: int) -> Image.Image:
        """Return the decoded, upright image in its own size, mode `L` or `RGB`. Raises DecodeError if that fails.

        Values of more than 8 bits are scaled from the full range of their type.
        """
        return decode_image(self.encoded(index), where=self.describe(index))


@dataclass(kw_only=True, eq=False, repr=False)
class FileSource(Source):
    """One image file per sample."""

    paths: Sequence[Path]

    def describe(self, index: int) -> str:
        """Return the file's path as text."""
        return as_text(self.paths[index])

    def key(self, index: int) -> str:
        """Return the path relative to the folder of the data, or as a table has it."""
        return as_text(self.paths.text(index) if isinstance(self.paths, PackedPaths) else self.paths[index])

    def content(self, index: int) -> bytes:
        """Return the file's bytes. Raises DecodeError if `read_image_file` does."""
        return read_image_file(self.paths[index])


@dataclass(kw_only=True, eq=False, repr=False)
class NumberedSource(Source):
    """Samples without names, which messages call by their split and their position in it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positions, self._named_splits = _positions_within(self.splits), self.splits

    def describe(self, index: int) -> str:
        """Return the set, the split and the position in it, e.g. `fashion-mnist train[17]`."""
        split = str(self._named_splits[index])
        return f"{self.name} {split}[{self._positions[index]}]" if split else f"{self.name}[{index}]"


@dataclass(kw_only=True, eq=False, repr=False)
class ArraySource(NumberedSource):
    """Images of one size that are already in memory.

    They are uint8, `[n, height, width]` (gray) or `[n, height, width, 3]` (RGB).
    """

    images: NDArray[np.uint8]

    def content(self, index: int) -> bytes:
        """Return the pixels, row by row."""
        return self.images[index].tobytes()

    def encoded(self, index: int) -> NDArray[np.uint8]:
        """Return the image, `[height, width]` or `[height, width, 3]`."""
        return self.images[index]

    def header(self, index: int, content: bytes) -> Header:
        """Return size and color from the shape of `images`."""
        height, width = self.images.shape[1:3]
        return Header(height=height, width=width, is_gray=self.images.ndim == 3)


def read_image_file(path: Path) -> bytes:
    """Read a whole file. Raises DecodeError if it is unreadable, not a regular file, or over `MAX_FILE_BYTES`."""
    where = as_text(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(f"{where}: not a regular file")
        check_file_size(where, status.st_size)
        return path.read_bytes()
    except DecodeError:
        raise
    except OSError as error:
        raise DecodeError(f"{where}: {error.strerror or error}") from error
    except ValueError as error:  # no file can have this name, e.g. because it contains a zero byte
        raise DecodeError(f"{where}: {error}") from error


def check_file_size(where: str, size_bytes: int) -> None:
    """Raise DecodeError if an image file of this size is larger than `MAX_FILE_BYTES`."""
    if size_bytes > MAX_FILE_BYTES:
        raise DecodeError(f"{where}: too large for an image ({size_bytes:,} bytes)")


def locate(starts: NDArray[np.int64], index: int) -> tuple[int, int]:
    """Return the part that holds sample `index`, and its position there; part i has samples `starts[i]:starts[i+1]`."""
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return part, index - int(starts[part])


def titled(name: str, format_: str) -> str:
    """Return the name of a data set, with the format if there is one."""
    return f"{name} ({format_})" if format_ else name


def as_text(path: str | Path) -> str:
    r"""Return a path or name in a form that can be printed: undecodable bytes become escapes such as `\xe4`.

    With one replacement character for all of them, different names would become equal.
    """
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 200 characters; its type if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _positions_within(groups: Texts) -> NDArray[np.int64]:
    """Return each sample's position among the samples of its group."""
    positions = np.empty(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        members = groups == group
        positions[members] = np.arange(members.sum())
    return positions
