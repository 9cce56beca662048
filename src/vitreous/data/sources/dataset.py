"""A Python object that gives (image, label) by number, e.g. a torch.utils.data.Dataset -> DatasetSource."""

import io
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.decoding.decode import Header, decode_image, read_header
from vitreous.data.sources.source import MAX_FILE_BYTES, SPLITS, Source, as_text
from vitreous.data.sources.spelling import split_of
from vitreous.errors import DataError, DecodeError, nearest

PYTHON_PREFIX = "python:"
"""What `data.source` of such a run begins with: the object itself cannot be written down."""

_ARRAY_MARK = b"\x93NUMPY"
_NUM_TRIED_TWICE = 8


@runtime_checkable
class Samples(Protocol):
    """What is accepted from Python: it has a length, and gives (image, label) for a number.

    An image is a PIL image, an array or tensor (uint8, or float in 0..1; `[height, width]`, channels first or last),
    the bytes of an image file or the path of one; a label is a class index, or the name of the class.
    """

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """The sample of this number."""
        ...


Dataset = Samples | tuple[Samples, ...] | Mapping[str, Samples]
"""One set; or (train, val), or (train, val, test); or sets by the names of their splits."""


class DatasetSource(Source):
    """Samples of one or several sets, asked for one at a time: such objects seldom allow several threads.

    Args:
        name: As in `Source`.
        classes: As in `Source`.
        parts: The sets, by split; an empty name for one that is yet to be split.
        labels: As in `Source`, of all parts in turn.
        notes: As in `Source`.
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        parts: Mapping[str, Samples],
        labels: NDArray[np.int64],
        notes: Sequence[str] = (),
    ) -> None:
        splits = np.repeat(np.array(list(parts), dtype="<U5"), [len(part) for part in parts.values()])
        super().__init__(name=name, classes=classes, labels=labels, splits=splits, notes=notes)
        self._parts = list(parts.values())
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self._lock = threading.Lock()

    def describe(self, index: int) -> str:
        """E.g. `CIFAR10 train[17]`: the split, and the position in it."""
        number = index - int(self._starts[self._part(index)])
        split = str(self.splits[index])
        return f"{self.name} {split}[{number}]" if split else f"{self.name}[{number}]"

    def content(self, index: int) -> bytes:
        """The bytes of the file; or for pixels those of a .npy file."""
        encoded = self.encoded(index)
        if isinstance(encoded, bytes):
            return encoded
        file = io.BytesIO()
        np.save(file, encoded, allow_pickle=False)
        return file.getvalue()

    def encoded(self, index: int) -> bytes | NDArray[np.uint8]:
        """The bytes of the file, or the pixels. Raises DecodeError where the set fails or gives no image."""
        where, part = self.describe(index), self._part(index)
        try:
            with self._lock:
                image, _ = self._parts[part][index - int(self._starts[part])]
            return as_encoded(image, where)
        except DecodeError:
            raise
        except Exception as error:  # it is anybody's code
            raise DecodeError(f"{where}: {_reason(error)}") from error

    def header(self, index: int, content: bytes) -> Header:
        """From the file's header, or the array's."""
        if not content.startswith(_ARRAY_MARK):
            return read_header(content, self.describe(index))
        shape = np.load(io.BytesIO(content), allow_pickle=False).shape
        return Header(height=shape[0], width=shape[1], is_gray=len(shape) == 2)

    def _part(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1


def open_dataset(dataset: Dataset) -> DatasetSource:
    """Ask for every label; where the set has `.targets`, as torchvision's do, no image is read for that.

    Classes are called as `.classes` says; without that, labels that are numbers are names too.

    Args:
        dataset: One set, a tuple of train, val and perhaps test, or a dictionary of splits.

    Returns:
        The samples, in their order.

    Raises:
        DataError: It is no such set, is empty, gives something else than (image, label), gives another image each time,
            or has fewer than two classes.
    """
    parts = _parts(dataset)
    first = next(iter(parts.values()))
    name = type(first).__name__
    for split, part in parts.items():
        _check_part(f"data={name}{f' {split}' if split else ''}", part)
    given = [_labels(name, part) for part in parts.values()]
    known = getattr(first, "classes", None)
    classes, labels = number_classes(f"data={name}", known, [label for part in given for label in part])
    if len(classes) < 2:
        raise DataError(f"data={name}: only one class, {classes[0]!r}; a classifier needs two; add images of others")
    return DatasetSource(name=name, classes=classes, parts=parts, labels=labels)


def number_classes(what: str, known: object, labels: Sequence[int | str]) -> tuple[list[str], NDArray[np.int64]]:
    """Class names, and each label as an index into them.

    Args:
        what: Whose labels, for the message.
        known: The class names where they are known, else anything.
        labels: Indices or names.

    Raises:
        DataError: A label beyond the known classes, or numbers among names.
    """
    is_number = [isinstance(label, int) for label in labels]
    names = [str(name) for name in known] if isinstance(known, list | tuple) and known else None
    if any(is_number) and not all(is_number):
        odd = labels[is_number.index(not is_number[0])]
        raise DataError(f"{what}: label={odd!r} among labels like {labels[0]!r}; give numbers or names, not both")
    if names is None:
        found = sorted(set(labels))
        names, numbers = [str(label) for label in found], {label: place for place, label in enumerate(found)}
    elif all(is_number):
        numbers = {place: place for place in range(len(names))}
    else:
        numbers = {label: place for place, label in enumerate(names)}
    for label in set(labels):
        if label not in numbers:
            rule = f"is none of the {len(names)} classes; " + (nearest(label, names) if isinstance(label, str) else
                                                              f"use 0 to {len(names) - 1}")  # fmt: skip
            raise DataError(f"{what}: label={label!r}: {rule}")
    return names, np.array([numbers[label] for label in labels], dtype=np.int64)


def as_encoded(image: object, where: str) -> bytes | NDArray[np.uint8]:
    """An image as a set gives it -> the bytes of a file, or upright pixels [height, width] or [height, width, 3].

    Raises:
        DecodeError: It is no image, or cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        path = Path(image)
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            raise DecodeError(f"{where}: {as_text(path)}: no such file, or too large for an image")
        return path.read_bytes()
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] <= 4 < image.shape[2]:
        image = np.moveaxis(image, 0, 2)
    if not isinstance(image, np.ndarray | Image.Image):
        raise DecodeError(f"{where}: a {type(image).__name__} is no image")
    return np.asarray(decode_image(image, where=where))


def _parts(dataset: Dataset) -> dict[str, Samples]:
    """The sets by split."""
    if isinstance(dataset, Mapping):
        named = {split_of(str(name)): part for name, part in dataset.items()}
        if None in named or len(named) < len(dataset) or "train" not in named:
            raise DataError(f"data={{{', '.join(map(str, dataset))}}}: must be splits, train among them, each once; "
                            "call them train, val and test")  # fmt: skip
        return {split: named[split] for split in SPLITS if split in named}
    if isinstance(dataset, tuple):
        if not 1 <= len(dataset) <= len(SPLITS):
            raise DataError(f"data: a tuple of {len(dataset)} sets; give (train, val) or (train, val, test)")
        return dict(zip(SPLITS, dataset, strict=False))
    return {"": dataset}


def _check_part(what: str, part: object) -> None:
    if not isinstance(part, Samples):
        raise DataError(f"{what}: has no length or gives nothing by number; give a set of (image, label), not a stream")
    if len(part) == 0:
        raise DataError(f"{what}: holds no sample; give one of (image, label)")
    for index in range(min(_NUM_TRIED_TWICE, len(part))):
        pair, again = _pair(what, part, index), _pair(what, part, index)
        try:
            same = _same(as_encoded(pair[0], what), as_encoded(again[0], what))
        except DecodeError:  # the survey says which, and why
            continue
        if not same:
            raise DataError(
                f"{what}: sample {index} is another image each time; leave out its random transforms, "
                "images are varied in training"
            )


def _same(first: bytes | NDArray[np.uint8], second: bytes | NDArray[np.uint8]) -> bool:
    if isinstance(first, bytes) or isinstance(second, bytes):
        return bool(first is second or (type(first) is type(second) and first == second))
    return np.array_equal(first, second)


def _pair(what: str, part: Samples, index: int) -> tuple[object, object]:
    try:
        pair = part[index]
    except Exception as error:  # it is anybody's code
        raise DataError(f"{what}: sample {index} cannot be had ({_reason(error)}); mend it or leave it out") from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{what}: sample {index} is a {type(pair).__name__}; it must be a pair, (image, label)")
    return pair[0], pair[1]


def _labels(name: str, part: Samples) -> list[int | str]:
    targets = getattr(part, "targets", None)
    if not isinstance(targets, Sequence | torch.Tensor | np.ndarray) or len(targets) != len(part) or (
        getattr(part, "target_transform", None) is not None
    ):  # fmt: skip
        targets = [_pair(f"data={name}", part, index)[1] for index in range(len(part))]
    return [_label(f"data={name}: sample {index}", target) for index, target in enumerate(targets)]


def _label(what: str, target: object) -> int | str:
    if isinstance(target, torch.Tensor):
        target = target.detach().cpu().numpy()
    if isinstance(target, np.ndarray | np.generic) and target.size == 1:
        target = target.item()
    if isinstance(target, str):
        return target
    if isinstance(target, int):
        return int(target)
    raise DataError(f"{what}: label={str(target)[:60]}: must be a class index or the name of a class; give one")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
