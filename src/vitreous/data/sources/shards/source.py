"""Tar files in WebDataset's layout -> ShardSource: every sample at random access, nothing shuffled in a buffer.

Of each shard only the headers are gone through, several shards at once. A sample is then a number, and its bytes are
one read. So the order of an epoch is the one that any other set has (`TrainLoader`), a shuffle of all samples; and
processes that take every k-th of it see each sample once, however many shards there are and however unequal.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.decode import Header, read_header
from vitreous.data.sources.dataset import number_classes
from vitreous.data.sources.shards.files import ShardFile, find_shards, read_beside
from vitreous.data.sources.shards.index import MAX_EXAMPLES, ShardIndex, index_shard
from vitreous.data.sources.source import MAX_FILE_BYTES, Source, Texts, as_text
from vitreous.data.sources.spelling import split_of
from vitreous.data.sources.table import MAX_CLASSES
from vitreous.data.workers import map_in_order
from vitreous.errors import DataError, DecodeError, nearest

INFO_NAME = "_info.json"
"""Beside the shards: names of classes, and what is in each shard. timm knows a file of this name and layout too."""

_MAX_INFO_BYTES = 64 << 20


@dataclass(frozen=True)
class Info:
    """What stands in `INFO_NAME`.

    Attributes:
        classes: Names of the classes; None: not said.
        test_ratio: As in `Source`.
    """

    classes: tuple[str, ...] | None = None
    test_ratio: float | None = None


@dataclass(frozen=True)
class _Found:
    """The shards of a set, the samples in each, and the number of the first one in each; last, how many there are."""

    shards: Sequence[ShardFile]
    indices: Sequence[ShardIndex]
    starts: NDArray[np.int64]


class ShardSource(Source):
    """Samples in tar files, each read alone where it lies.

    Args:
        name: As in `Source`.
        classes: As in `Source`.
        labels: As in `Source`.
        splits: As in `Source`.
        groups: As in `Source`.
        weights: As in `Source`.
        notes: As in `Source`.
        found: Where they lie.
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        labels: NDArray[np.int64],
        splits: Texts,
        groups: Texts | None,
        weights: NDArray[np.float64] | None,
        notes: Sequence[str],
        found: _Found,
    ) -> None:
        super().__init__(
            name=name, classes=classes, labels=labels, splits=splits, groups=groups, weights=weights, notes=notes
        )
        self._found = found

    def describe(self, index: int) -> str:
        """The tar's address, and the name in it."""
        shard, number = self._place(index)
        return f"{as_text(self._found.shards[shard].address)}/{self._found.indices[shard].names.text(number)}"

    def content(self, index: int) -> bytes:
        """The image's bytes. Raises DecodeError if they cannot be read, or are too many for an image."""
        shard, number = self._place(index)
        samples = self._found.indices[shard]
        if samples.sizes[number] > MAX_FILE_BYTES:
            raise DecodeError(f"{self.describe(index)}: {samples.sizes[number]:,} bytes are too many for one image")
        return self._found.shards[shard].read(samples.offsets[number], samples.sizes[number])

    def encoded(self, index: int) -> bytes:
        """As `content`."""
        return self.content(index)

    def header(self, index: int, content: bytes) -> Header:
        """From the image's header. Raises DecodeError if it is no image."""
        return read_header(content, self.describe(index))

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._found.starts, index, side="right")) - 1
        return shard, index - int(self._found.starts[shard])


def open_shards(name: str) -> ShardSource:
    """Find the samples of every shard; no image is read.

    A label is a class index in `.cls`, or an index or name in `.json` or `.txt`; `INFO_NAME` names the classes. A split
    is what a tar is called (`train-000.tar`, `imagenet-val-000.tar`), or else its folder.

    Args:
        name: As `find_shards` takes it.

    Returns:
        The samples in the order of the shards. A million take some 100 MB.

    Raises:
        DataError: As `find_shards` and `index_shard`; no labelled image, fewer than two classes, labels that are none
            of the known classes, a class in `val` or `test` that is not in `train`.
        DataNotFoundError: As `find_shards`.
        MissingDependencyError: As `find_shards`.
    """
    shards = find_shards(name)
    indices = map_in_order(lambda number: index_shard(shards[number]), len(shards))
    found = _Found(shards, indices, np.cumsum([0, *(len(index.names) for index in indices)]))
    where, notes = f"data.source={name}", _notes(found)
    if not found.starts[-1]:
        raise DataError(f"{where}: no labelled image in {len(shards):,} tars ({'; '.join(notes) or 'they are empty'}); "
                        "give each image a .cls, .json or .txt of the same name")  # fmt: skip
    info = _read_info(shards[0])
    classes, labels = _classes(where, info.classes, [label for index in found.indices for label in index.labels])
    splits = _splits(found)
    _check_classes(where, classes, labels, splits)
    groups = np.array([group for index in found.indices for group in index.groups], dtype=object)
    weights = np.concatenate([np.frombuffer(index.weights, dtype=np.float64) for index in found.indices])
    if not weights.any():
        raise DataError(f"{where}: all {len(weights):,} weights are 0; give some images a larger one")
    source = ShardSource(
        name=_title(name),
        classes=classes,
        labels=labels,
        splits=splits,
        groups=groups if (groups != "").any() else None,
        weights=weights if (weights != 1).any() else None,
        notes=notes,
        found=found,
    )
    source.test_ratio = info.test_ratio
    return source


def _title(name: str) -> str:
    """The folder's name, or what the pattern begins with."""
    last = re.split(r"[{*]", as_text(name).replace("\\", "/").rstrip("/").rpartition("/")[2])[0]
    path = Path(name)
    title = path.resolve().name if path.is_dir() else last.removesuffix(".tar").rstrip("-_.")
    return as_text(title) or "shards"


def _notes(found: _Found) -> list[str]:
    """What was left out of all shards, why, and what it is called."""
    together: dict[str, tuple[int, list[str]]] = {}
    for shard, index in zip(found.shards, found.indices, strict=True):
        for why, (count, which) in index.left_out.items():
            before, examples = together.get(why, (0, []))
            named = [f"{shard.name}: {one}" if one else shard.name for one in which]
            together[why] = before + count, [*examples, *named][:MAX_EXAMPLES]
    return [f"{count:,} {why}, e.g. {', '.join(which)}" for why, (count, which) in together.items()]


def _read_info(shard: ShardFile) -> Info:
    """What stands beside a shard, as far as it makes sense. Raises DataError where it is no such file."""
    content = read_beside(shard, INFO_NAME, _MAX_INFO_BYTES)
    if content is None:
        return Info()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"data.source: {INFO_NAME} beside {shard.name} is damaged; mend or remove it") from error
    if not isinstance(found, dict):
        return Info()
    return Info(_names(shard, found.get("classes")), _share(found.get("test_share")))


def _names(shard: ShardFile, classes: Any) -> tuple[str, ...] | None:
    if classes is None:
        return None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or (
        len(set(classes)) < len(classes)
    ):  # fmt: skip
        raise DataError(f"data.source: classes in {INFO_NAME} beside {shard.name}: must be different names; mend them")
    return tuple(classes)


def _share(share: Any) -> float | None:
    return float(share) if isinstance(share, float) and 0 <= share < 1 else None


def _classes(where: str, known: tuple[str, ...] | None, labels: list[int | str]) -> tuple[list[str], NDArray[np.int64]]:
    """The classes in order, and each sample's place among them; without names, texts that are numbers count as such."""
    are_numbers = all(isinstance(label, int) or re.fullmatch(r"[0-9]{1,9}", label) for label in labels)
    if are_numbers and set(labels).isdisjoint(known or ()):
        labels = [int(label) for label in labels]
    if len(set(labels)) > MAX_CLASSES:
        raise DataError(f"{where}: over {MAX_CLASSES:,} different labels; put the classes into .cls")
    classes, numbers = number_classes(where, known and list(known), labels)
    if len(classes) < 2:
        raise DataError(f"{where}: only one class, {classes[0]!r}; a classifier needs two; add images of others")
    return classes, numbers


def _splits(found: _Found) -> Texts:
    """Each sample's split; none where all shards have the same: it is the whole set then."""
    of_shards = [_split(shard) for shard in found.shards]
    if len(set(of_shards)) == 1:
        of_shards = [""] * len(of_shards)
    return np.repeat(np.array(of_shards, dtype="<U5"), np.diff(found.starts))


def _split(shard: ShardFile) -> str:
    words = re.split(r"[-_. ]", shard.name.removesuffix(".tar"))
    return next((split for word in words if (split := split_of(word))), split_of(shard.folder) or "")


def _check_classes(where: str, classes: Sequence[str], labels: NDArray[np.int64], splits: Texts) -> None:
    trained = np.unique(labels[np.isin(splits, ("", "train"))])
    if not len(trained):
        raise DataError(f"{where}: {' and '.join(sorted(set(splits)))} but no train; add shards called train-….tar")
    for number in np.setdiff1d(labels, trained).tolist():
        raise DataError(
            f"{where}: class {classes[number]!r} is in {splits[labels == number][0]}, but not in train; "
            f"{nearest(classes[number], [classes[label] for label in trained.tolist()])}"
        )
