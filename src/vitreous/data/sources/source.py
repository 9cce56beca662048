"""Where images come from -> Source: samples by number, each with a label, a given split, its bytes and its image."""

import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.decoding.decode import Header, ImageLike, decode_image, read_header
from vitreous.errors import DecodeError

SPLITS = ("train", "val", "test")

MAX_FILE_BYTES = 1 << 30
"""No image file is larger than this."""

Texts = Shaped[np.ndarray, "samples"]
"""An array of short texts, e.g. each sample's split."""


class Source(ABC):
    """Samples `0 … len(source) − 1`; nothing is decoded before it is asked for.

    Attributes:
        name: How people call the set, e.g. `fashion-mnist` or the folder's name.
        classes: The class names; a label is an index into them.
        labels: `[n]`, each in [0, len(classes)).
        splits: `[n]`, the split each sample came with: `train`, `val`, `test`, or an empty text.
        groups: `[n]`, texts: samples of one group (a person, a video) stay on one side; an empty text: alone. Or None.
        weights: `[n]`, how much each sample counts in training beside the others, at least 0. Or None: all alike.
        test_ratio: The share that this set asks to be held out, where it brings no test split; None: no wish.
        notes: What its user should know, one sentence each.
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        labels: NDArray[np.int64],
        splits: Sequence[str] | Texts,
        groups: Texts | None = None,
        weights: NDArray[np.float64] | None = None,
        test_ratio: float | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.classes = tuple(classes)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.splits = np.asarray(splits, dtype="<U5")
        self.groups = groups
        self.weights = weights
        self.test_ratio = test_ratio
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def describe(self, index: int) -> str:
        """Which sample this is, for people: a path, or `fashion-mnist train[17]`."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes that make this sample what it is: equal bytes, equal image. Raises DecodeError if unreadable."""

    @abstractmethod
    def encoded(self, index: int) -> ImageLike:
        """What `decode_image` and `Preprocess.pixels` take. Raises DecodeError if unreadable."""

    @abstractmethod
    def header(self, index: int, content: bytes) -> Header:
        """Size and colour, from its `content`, without decoding. Raises DecodeError if it is no image."""

    def image(self, index: int) -> Image.Image:
        """The decoded, upright image in its own size, mode `L` or `RGB`. Raises DecodeError if it does not decode."""
        return decode_image(self.encoded(index), where=self.describe(index))


class FileSource(Source):
    """One image file a sample.

    Args:
        name: As in `Source`.
        classes: As in `Source`.
        paths: The files, `[n]`.
        labels: As in `Source`.
        splits: As in `Source`.
        groups: As in `Source`.
        weights: As in `Source`.
        notes: As in `Source`.
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        paths: Sequence[Path],
        labels: NDArray[np.int64],
        splits: Sequence[str] | Texts,
        groups: Texts | None = None,
        weights: NDArray[np.float64] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(
            name=name, classes=classes, labels=labels, splits=splits, groups=groups, weights=weights, notes=notes
        )
        self.paths = paths

    def describe(self, index: int) -> str:
        """The file's path, as text."""
        return as_text(self.paths[index])

    def content(self, index: int) -> bytes:
        """The file's bytes. Raises DecodeError if it cannot be read, or is no file but a device or a pipe."""
        path = self.paths[index]
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError(f"{self.describe(index)}: is no file")
            if status.st_size > MAX_FILE_BYTES:
                raise DecodeError(f"{self.describe(index)}: {status.st_size:,} bytes are too many for one image")
            return path.read_bytes()
        except DecodeError:
            raise
        except OSError as error:
            raise DecodeError(f"{self.describe(index)}: {error.strerror or error}") from error
        except ValueError as error:  # a name that no file can have, such as one with a zero byte in it
            raise DecodeError(f"{self.describe(index)}: {error}") from error

    def encoded(self, index: int) -> bytes:
        """The file's bytes. Raises DecodeError if it cannot be read."""
        return self.content(index)

    def header(self, index: int, content: bytes) -> Header:
        """From the file's header. Raises DecodeError if it is no image."""
        return read_header(content, self.describe(index))


class ArraySource(Source):
    """Images of one size that are in memory already.

    Args:
        name: As in `Source`.
        classes: As in `Source`.
        images: uint8, `[n, height, width]` (gray) or `[n, height, width, 3]` (RGB).
        labels: As in `Source`.
        splits: As in `Source`.
        test_ratio: As in `Source`.
        notes: As in `Source`.
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        splits: Sequence[str],
        test_ratio: float | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(name=name, classes=classes, labels=labels, splits=splits, test_ratio=test_ratio, notes=notes)
        self.images = images
        self._places = _number_within(self.splits)

    def describe(self, index: int) -> str:
        """E.g. `fashion-mnist train[17]`: the split, and the position in it."""
        split = str(self.splits[index])
        return f"{self.name} {split}[{self._places[index]}]" if split else f"{self.name}[{index}]"

    def content(self, index: int) -> bytes:
        """The pixels, row by row."""
        return self.images[index].tobytes()

    def encoded(self, index: int) -> NDArray[np.uint8]:
        """The array, `[height, width]` or `[height, width, 3]`."""
        return self.images[index]

    def header(self, index: int, content: bytes) -> Header:
        """From the array's shape."""
        height, width = self.images.shape[1:3]
        return Header(height=height, width=width, is_gray=self.images.ndim == 3)


def as_text(path: str | Path) -> str:
    """A path or name that can be printed anywhere: bytes that are no text become question marks in a diamond."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _number_within(groups: Texts) -> NDArray[np.int64]:
    """Each sample's position among those of its group."""
    places = np.empty(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        members = groups == group
        places[members] = np.arange(members.sum())
    return places
