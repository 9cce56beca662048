"""Tar files in the WebDataset layout -> ShardSource, which reads every sample directly, without a shuffle buffer.

Only the headers of each shard are read at first, several shards at once. A sample then is a number, and its bytes are
read with one request. An epoch is therefore a shuffle of all samples, as for any other set (`TrainLoader`). Processes
that take every k-th sample of it see each sample once, for any number and sizes of shards.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_cells import MAX_CLASSES
from vitreous.data.sources.classes import check_classes, check_train_classes, check_weights, number_classes
from vitreous.data.sources.shards.files import ShardFile, find_shards, read_neighbor
from vitreous.data.sources.shards.index import MAX_EXAMPLES, ShardIndex, index_shard
from vitreous.data.sources.source import Source, Texts, as_text, check_file_size, locate
from vitreous.data.sources.spelling import split_of
from vitreous.data.workers import map_in_order
from vitreous.errors import DataError
from vitreous.wording import plural

INFO_NAME = "_info.json"
"""A file next to the shards with the class names and the contents of each shard; timm uses the same name and layout."""

_MAX_INFO_BYTES = 64 << 20


@dataclass(frozen=True)
class ShardImage:
    """Where the bytes of an image are. `name` is the address of the tar file, followed by the path in it."""

    name: str
    file: ShardFile
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes of the image. Raises DecodeError if they cannot be read or are too many."""
        check_file_size(self.name, self.size)
        return self.file.read(self.offset, self.size)


@dataclass(frozen=True)
class Shards:
    """The shards of a set.

    `starts` are the numbers of the first sample of each file, then the number of all samples.
    """

    files: Sequence[ShardFile]
    indices: Sequence[ShardIndex]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def image(self, number: int) -> ShardImage:
        """Return where a sample is, by its number among those of all shards."""
        shard, position = locate(self.starts, number)
        file, samples = self.files[shard], self.indices[shard]
        name = f"{as_text(file.address)}/{samples.names.text(position)}"
        return ShardImage(name, file, samples.offsets[position], samples.sizes[position])

    def notes(self) -> list[str]:
        """Summarize what was left out of all shards: one note per reason, with examples."""
        by_reason: dict[str, tuple[int, list[str]]] = {}
        for file, index in zip(self.files, self.indices, strict=True):
            for reason, (count, which) in index.left_out.items():
                before, examples = by_reason.get(reason, (0, []))
                named = [f"{file.name}: {one}" if one else file.name for one in which]
                by_reason[reason] = before + count, [*examples, *named][:MAX_EXAMPLES]
        return [f"{reason} ({count:,}, e.g. {', '.join(which)})" for reason, (count, which) in by_reason.items()]


@dataclass(kw_only=True, eq=False, repr=False)
class ShardSource(Source):
    """Samples in tar files, each read directly from its place."""

    shards: Shards

    def describe(self, index: int) -> str:
        """Return the address of the tar file, followed by the path in it."""
        return self.shards.image(index).name

    def content(self, index: int) -> bytes:
        """Return the bytes of the image. Raises DecodeError if they cannot be read or are too many."""
        return self.shards.image(index).read()


def find_images(name: str, *, labeled: bool = True) -> Shards:
    """Find the images of every shard, or only the labeled ones. Raises like `open_shards` if a shard is unusable."""
    files = find_shards(name)
    indices = map_in_order(lambda number: index_shard(files[number], labeled=labeled), len(files))
    return Shards(files, indices, np.cumsum([0, *(len(index.names) for index in indices)]))


def open_shards(name: str) -> ShardSource:
    """Find the samples of every shard; no image is read.

    A label is a class index or class name in `.cls`, `.json` or `.txt`. `INFO_NAME` may name the classes. The split of
    a shard is in its file name (`train-000.tar`, `imagenet-val-000.tar`) or is the name of its folder.

    Returns:
        The samples in the order of the shards. A million take about 100 MB.

    Raises:
        DataNotFoundError: A shard does not exist or cannot be reached.
        DataError: The pattern is invalid, a shard is not a readable tar file, there is no labeled image, there are
            fewer than two classes, a label is not a known class, a class in `val` or `test` is not in `train`, or all
            weights are 0.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    shards = find_images(name)
    files, indices = shards.files, shards.indices
    where, notes = f"data.source={name}", shards.notes()
    if not len(shards):
        reasons = "; ".join(notes) or "no samples at all"
        raise DataError(
            f"{where}: no labeled image in {plural(len(files), 'tar file')} ({reasons}); "
            "add a .cls, .json or .txt file with the class next to each image"
        )
    known, test_ratio = _read_info(where, files[0])
    classes, labels = _classes(where, known, [label for index in indices for label in index.labels])
    splits = _splits(shards)
    if not np.isin(splits, ("", "train")).any():
        names = " and ".join(sorted(set(splits)))
        raise DataError(f"{where}: has shards of {names} but none of train; add shards named like train-000.tar")
    check_train_classes(where, classes, labels, splits)
    groups = np.array([group for index in indices for group in index.groups], dtype=object)
    weights = np.concatenate([np.frombuffer(index.weights, dtype=np.float64) for index in indices])
    check_weights(where, weights)
    return ShardSource(
        name=_title(name),
        classes=tuple(classes),
        labels=labels,
        splits=splits,
        groups=groups if (groups != "").any() else None,
        weights=weights if (weights != 1).any() else None,
        test_ratio=test_ratio,
        notes=tuple(notes),
        shards=shards,
    )


def _title(name: str) -> str:
    """Return the name of the folder, or the beginning of the pattern."""
    last = re.split(r"[{*]", as_text(name).replace("\\", "/").rstrip("/").rpartition("/")[2])[0]
    path = Path(name)
    title = path.resolve().name if path.is_dir() else last.removesuffix(".tar").rstrip("-_.")
    return as_text(title) or "shards"


def _read_info(where: str, shard: ShardFile) -> tuple[list[str] | None, float | None]:
    """Read class names and test ratio from `INFO_NAME` next to a shard, or None. Raises DataError if it is damaged."""
    content = read_neighbor(shard, INFO_NAME, _MAX_INFO_BYTES)
    try:
        info = {} if content is None else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {INFO_NAME} next to {shard.name} is not valid JSON; fix or remove it") from error
    if not isinstance(info, dict):
        return None, None
    classes, ratio = info.get("classes"), info.get("test_share")
    are_texts = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if classes is not None and not (are_texts and len(set(classes)) == len(classes)):
        raise DataError(f"{where}: classes in {INFO_NAME} must be a list of different texts; fix or remove them")
    return classes, ratio if isinstance(ratio, float) and 0 <= ratio < 1 else None


def _classes(where: str, known: list[str] | None, labels: list[int | str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the class names and class indices; labels written as numbers are indices, unless they are known names."""
    are_numbers = all(isinstance(label, int) or re.fullmatch(r"[0-9]{1,9}", label) for label in labels)
    if are_numbers and set(labels).isdisjoint(known or ()):
        labels = [int(label) for label in labels]
    if len(set(labels)) > MAX_CLASSES:
        raise DataError(
            f"{where}: over {MAX_CLASSES:,} different labels, too many for classes; store the class in .cls files"
        )
    classes, numbers = number_classes(where, known, labels)
    check_classes(where, classes, numbers)
    return classes, numbers


def _splits(shards: Shards) -> Texts:
    """Return each sample's split; none if all shards have the same split, since they then are the whole set."""
    splits = [_split(file) for file in shards.files]
    if len(set(splits)) == 1:
        splits = [""] * len(splits)
    return np.repeat(np.array(splits, dtype="<U5"), np.diff(shards.starts))


def _split(shard: ShardFile) -> str:
    words = re.split(r"[-_. ]", shard.name.removesuffix(".tar"))
    return next((split for word in words if (split := split_of(word))), split_of(shard.folder) or "")
