"""A Python object that returns (image, label) by index, e.g. a torch.utils.data.Dataset -> DatasetSource."""

import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vitreous.data.decoding.arrays import channels_last, is_array_file
from vitreous.data.decoding.decode import Header, decode_image, read_header
from vitreous.data.label_sets import LabelArray, checked_label, number_sets
from vitreous.data.sources.classes import Label, check_classes, number_classes, renumbered
from vitreous.data.sources.source import SPLITS, NumberedSource, locate, read_image_file
from vitreous.data.sources.spelling import split_of
from vitreous.errors import DataError, DecodeError

PYTHON_PREFIX = "python:"
"""How `data.source` begins for an object from Python, which cannot be written into a configuration file."""

_NUM_READ_TWICE, _NUM_COMPARED = 8, 16
_DIVISION_ERROR = 1e-3


@runtime_checkable
class Samples(Protocol):
    """An indexable set of (image, label) pairs.

    An image is a PIL image, an array or tensor (of any number type; `[height, width]`, 1 to 16 channels first or last),
    the bytes of an image file, or the path of one. A label is a class index or a class name; for several labels per
    image, a list of class names, or an array of 0 and 1 per class.
    """

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return the sample at an index from 0 to `len() - 1`."""


Dataset = Samples | tuple[Samples, ...] | Mapping[str, Samples]
"""One set; a tuple (train, val) or (train, val, test); or a dictionary of sets by the names of their splits."""


class DatasetSource(NumberedSource):
    """The samples of one or several Python objects. They are read one at a time, since few objects are thread-safe.

    Args:
        by_split: The objects by the names of their splits; the name is empty for samples without a split.
        labels: Class indices, `[n]`, of all objects in the order of `by_split`.
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        by_split: Mapping[str, Samples],
        labels: LabelArray,
        notes: Sequence[str] = (),
    ) -> None:
        self._sets = list(by_split.values())
        sizes = [len(samples) for samples in self._sets]
        splits = np.repeat(np.array(list(by_split), dtype="<U5"), sizes)
        super().__init__(name=name, classes=tuple(classes), labels=labels, splits=splits, notes=tuple(notes))
        self._starts = np.cumsum([0, *sizes])
        self._lock = threading.Lock()

    def content(self, index: int) -> bytes:
        """Return the bytes of the image file, or of a .npy file of the pixels. Raises DecodeError as `encoded` does."""
        return _as_bytes(self.encoded(index))

    def encoded(self, index: int) -> bytes | NDArray[Any]:
        """Return the bytes of the image file, or the pixels. Raises DecodeError if the object fails to return one."""
        where = self.describe(index)
        number, position = locate(self._starts, index)
        try:
            with self._lock:
                image, _ = self._sets[number][position]
            return as_encoded(image, where)
        except DecodeError:
            raise
        except Exception as error:  # the object is the user's code and may raise anything
            raise DecodeError(f"{where}: {_reason(error)}") from error

    def header(self, index: int, content: bytes) -> Header:
        """Read the header of the image file or of the .npy file. Raises DecodeError if it is not an image."""
        header = read_header(content, self.describe(index))
        return replace(header, kind="") if is_array_file(content) else header


def open_dataset(dataset: Dataset) -> DatasetSource:
    """Read every label of a set; no image is read for that if the set has `.targets`, as torchvision's sets do.

    The class names are the `.classes` of the first set. Without `.classes`, numeric labels are the class names. A set
    is one object, a tuple (train, val) or (train, val, test), or a dictionary of splits, whose order is kept.

    Raises:
        DataError: The object is not such a set, is empty, does not return (image, label) pairs, returns different
            images for the same index, or has fewer than two classes.
    """
    by_split = _by_split(dataset)
    first = next(iter(by_split.values()))
    name = type(first).__name__
    where = f"data={name}"
    for split, samples in by_split.items():
        _check_samples(f"{where}{f' {split}' if split else ''}", samples)
    known = getattr(first, "classes", None)
    given = [label for samples in by_split.values() for label in _labels(where, samples, known)]
    sets = [label for label in given if isinstance(label, tuple)]
    if sets and len(sets) < len(given):
        raise DataError(f"{where}: some samples have one label, others a list of labels; use lists for all")
    labels: LabelArray
    if sets:
        classes, labels = number_sets(where, known, sets)
    else:
        classes, labels = number_classes(where, known, given)
    check_classes(where, classes, labels)
    source = DatasetSource(name=name, classes=classes, by_split=by_split, labels=labels)
    source.task_reason = f"{name} returns a list of labels per image" if sets else ""
    return source


def as_encoded(image: object, where: str) -> bytes | NDArray[Any]:
    """Return the bytes of an image file, or an upright array of any depth, `[height, width]` or with channels last.

    The image is of any type that `Samples` allows. Raises DecodeError, which begins with `where`, if it is not an image
    or its file cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        try:
            return read_image_file(Path(image))
        except DecodeError as error:
            raise DecodeError(f"{where}: {error}") from error
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()  # NumPy has no bfloat16
    if isinstance(image, Image.Image) and image.mode[0] in "IF":
        image = np.asarray(ImageOps.exif_transpose(image))
    if isinstance(image, np.ndarray) and image.dtype == np.bool_:
        image = image * np.uint8(255)
    if isinstance(image, np.ndarray):
        try:
            if image.dtype.kind == "f" and not np.isfinite(image).all():
                raise ValueError("values that are not finite")
            return np.ascontiguousarray(_without_division(channels_last(image)))
        except ValueError as error:
            raise DecodeError(f"{where}: {error}") from error
    if not isinstance(image, np.ndarray | Image.Image):
        raise DecodeError(f"{where}: an object of type {type(image).__name__}, not an image")
    return np.asarray(decode_image(image, where=where))


def _without_division(array: NDArray[Any]) -> NDArray[Any]:
    """Return the 8-bit image that was divided by 255, as torchvision's `ToTensor` does; other arrays as they are."""
    if array.dtype.kind != "f" or not (array.min() >= 0 and array.max() <= 1):
        return array
    levels = np.rint(array * array.dtype.type(255))
    is_divided = bool((np.abs(array * array.dtype.type(255) - levels) < _DIVISION_ERROR).all())
    return levels.astype(np.uint8) if is_divided else array


def _by_split(dataset: Dataset) -> dict[str, Samples]:
    """Return the sets by the names of their splits."""
    if isinstance(dataset, Mapping):
        named = {split_of(str(name)): samples for name, samples in dataset.items()}
        if None in named or len(named) < len(dataset) or "train" not in named:
            raise DataError(
                f"data={{{', '.join(map(str, dataset))}}}: keys must be different splits and include train; "
                "use train, val and test"
            )
        return {split: named[split] for split in SPLITS if split in named}
    if isinstance(dataset, tuple):
        if not 1 <= len(dataset) <= len(SPLITS):
            raise DataError(f"data: a tuple of {len(dataset)} sets; use (train, val) or (train, val, test)")
        return dict(zip(SPLITS, dataset, strict=False))
    return {"": dataset}


def _check_samples(where: str, samples: object) -> None:
    """Raise DataError unless this is a non-empty set of pairs that returns the same image for the same index."""
    if not isinstance(samples, Samples):
        raise DataError(
            f"{where}: has no len() or cannot be indexed; use a set of (image, label) pairs that has both, not a stream"
        )
    try:
        num_samples = len(samples)
    except TypeError as error:  # an array without axes has a len() that raises
        raise DataError(f"{where}: has no length ({_reason(error)}); use a set of (image, label) pairs") from error
    if num_samples == 0:
        raise DataError(f"{where}: is empty; use a set with (image, label) pairs")
    for index in range(min(_NUM_READ_TWICE, num_samples)):
        first, second = _pair(where, samples, index)[0], _pair(where, samples, index)[0]
        try:
            is_same = _as_bytes(as_encoded(first, where)) == _as_bytes(as_encoded(second, where))
        except Exception:  # the survey reports unreadable images
            continue
        if not is_same:
            raise DataError(
                f"{where}: sample {index} is a different image each time it is read; remove the random transforms, "
                "since training augments the images"
            )


def _as_bytes(encoded: bytes | NDArray[Any]) -> bytes:
    """Return the bytes of an image file as they are, and pixels as a .npy file."""
    if isinstance(encoded, bytes):
        return encoded
    file = io.BytesIO()
    np.save(file, encoded, allow_pickle=False)
    return file.getvalue()


def _pair(where: str, samples: Samples, index: int) -> tuple[object, object]:
    """Return the image and label at an index."""
    try:
        pair = samples[index]
    except Exception as error:  # the object is the user's code and may raise anything
        raise DataError(f"{where}: sample {index} cannot be read ({_reason(error)}); fix or remove it") from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{where}: sample {index} is of type {type(pair).__name__}, not a pair; return (image, label)")
    return pair[0], pair[1]


def _labels(where: str, samples: Samples, known: object) -> list[Label]:
    """Return all labels, from `.targets` if they are what indexing would return.

    Class indices are those of known classes, also if the set has other `.classes`, such as only some of them.
    """
    targets = getattr(samples, "targets", None)
    is_complete = isinstance(targets, Sequence | torch.Tensor | np.ndarray) and len(targets) == len(samples)
    is_changed = getattr(samples, "target_transform", None) is not None
    if targets is None or not is_complete or is_changed or not _are_returned(where, samples, targets):
        targets = [_pair(where, samples, index)[1] for index in range(len(samples))]
    labels = [checked_label(f"{where}: sample {index}", target) for index, target in enumerate(targets)]
    return renumbered(where, labels, getattr(samples, "classes", None), known)


def _are_returned(where: str, samples: Samples, targets: Any) -> bool:
    """Return True if indexing returns these labels, for some samples; a subclass may return others."""
    for index in np.unique(np.linspace(0, len(samples) - 1, _NUM_COMPARED, dtype=np.int64)).tolist():
        place = f"{where}: sample {index}"
        try:
            label = _pair(where, samples, index)[1]
        except DataError:  # the survey reports unreadable images
            continue
        if checked_label(place, label) != checked_label(place, targets[index]):
            return False
    return True


def _reason(error: Exception) -> str:
    """Return an error's type and its message in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
