"""Source -> a folder of tar files in the WebDataset layout, with the bytes of the images unchanged."""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous import atomic
from vitreous.data.decoding.decode import decode_image, read_header, reason_of
from vitreous.data.sources import SPLITS, Source
from vitreous.data.sources.image_files import IMAGE_SUFFIXES
from vitreous.data.sources.shards.source import INFO_NAME
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import ConfigError, DataError, DecodeError
from vitreous.seeding import derive, permutation
from vitreous.wording import plural

MAX_SAMPLES = 10_000
MAX_BYTES = 500_000_000

WITHOUT_SPLIT = "images"
"""The name of shards with samples that have no split."""

_READ_AHEAD = 32
_MTIME_S = 315_532_800
"""1980-01-01: a constant, so that the same samples give the same bytes, and plausible to other programs."""
_EXTENSIONS = {
    ".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".mpo": ".jpg", ".tiff": ".tif", ".jpeg2000": ".jp2",
}  # fmt: skip
"""Extension -> the one that other programs look for."""
_SLUG_LENGTH = 48


@dataclass(frozen=True)
class Written:
    """What `write_shards` wrote.

    `shards` has the names of the files by split; `WITHOUT_SPLIT` is the split of samples that have none. `skipped` has
    the samples that could not be read and were left out, as (sample, reason).
    """

    path: Path
    num_samples: int
    shards: dict[str, list[str]]
    size_bytes: int
    skipped: tuple[tuple[str, str], ...]


def write_shards(
    source: Source,
    out: Path,
    *,
    max_samples: int = MAX_SAMPLES,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> Written:
    """Write each split to its own tar files, in an order that mixes the classes for programs that read sequentially.

    A sample is the image `<number>-<old name>.jpg` (or another extension), its class index in `.cls`, and its group and
    weight in `.json` if it has them. Image files keep their bytes; images in memory become PNG, and so do unnamed files
    of formats that shards do not have, such as icons. `INFO_NAME` holds the class names and counts. The same samples
    give the same bytes. If writing fails or is stopped, nothing is left.

    The folder `out` does not exist or is empty; its parents are created if necessary. A tar file has at most
    `max_samples` images and `max_bytes` bytes, both at least 1; only a file with a single larger image exceeds that.

    Raises:
        ConfigError: `max_samples` or `max_bytes` is below 1, or `out` is not empty.
        DataError: No image can be read, or images have several labels.
        SaveError: The folder cannot be written.
    """
    for key, got in (("max_samples", max_samples), ("max_bytes", max_bytes)):
        if got < 1:
            raise ConfigError(f"{key}={got}: must be at least 1; leave it out to use the default")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out={out}: exists and is not an empty folder; use a new folder, or remove it first")
    if source.is_multilabel:
        raise DataError(f"data.source={source.name}: shards hold one label per image, not several; train on the table")
    writer = _Writer(source, max_samples, max_bytes, progress)
    atomic.create_folder(out.parent)
    atomic.write_folder(out, writer.write)
    shards = {split: list(found["filenames"]) for split, found in writer.splits.items()}
    return Written(out, writer.num_samples, shards, writer.size_bytes, tuple(writer.skipped))


class _Writer:
    """A writer of the splits of a source, which counts what it wrote."""

    def __init__(self, source: Source, max_samples: int, max_bytes: int, progress: Progress | None) -> None:
        self.source = source
        self.max_samples, self.max_bytes, self.progress = max_samples, max_bytes, progress
        self.num_samples = self.size_bytes = self.num_tried = 0
        self.splits: dict[str, dict[str, Any]] = {}
        self.skipped: list[tuple[str, str]] = []

    def write(self, folder: Path) -> None:
        """Write all splits and `INFO_NAME` into a folder. Raises DataError if no image can be read."""
        for split in (*SPLITS, ""):
            self._write_split(folder, split)
        if not self.num_samples:
            first = f" (the first, {self.skipped[0][0]}: {self.skipped[0][1]})" if self.skipped else ""
            raise DataError(
                f"data.source={self.source.name}: none of {plural(len(self.source), 'image')} can be read{first}; "
                "check the files"
            )
        ratio = {} if self.source.test_ratio is None else {"test_share": self.source.test_ratio}
        info = {"classes": list(self.source.classes), **ratio, "splits": self.splits}
        (folder / INFO_NAME).write_text(json.dumps(info, ensure_ascii=False, indent=1) + "\n", "utf-8")

    def _write_split(self, folder: Path, split: str) -> None:
        """Write the shards of one split; an empty name stands for the samples that have none."""
        name = split or WITHOUT_SPLIT
        counts = np.zeros(len(self.source.classes), dtype=np.int64)
        files, lengths = list[str](), list[int]()
        shard: _Shard | None = None
        try:
            for index, members in self._samples(name, np.flatnonzero(self.source.splits == split)):
                if shard is not None and (lengths[-1] == self.max_samples or shard.size_with(members) > self.max_bytes):
                    self.size_bytes += shard.close()
                    shard = None
                if shard is None:
                    files.append(f"{name}-{len(files):06d}.tar")
                    lengths.append(0)
                    shard = _Shard(folder / files[-1])
                shard.add(members)
                lengths[-1] += 1
                counts[self.source.labels[index]] += 1
        finally:
            if shard is not None:
                self.size_bytes += shard.close()
        if files:
            num, described = sum(lengths), {"filenames": files, "shard_lengths": lengths}
            self.splits[name] = {"name": name, "num_samples": num, **described, "class_counts": counts.tolist()}
            self.num_samples += num

    def _samples(self, name: str, indices: NDArray[np.int64]) -> Iterator[tuple[int, dict[str, bytes]]]:
        """Yield each readable sample and its members in a mixed order; a few are read at once."""
        order = indices[permutation(derive(0, "shard", name), len(indices))]
        for start in range(0, len(order), _READ_AHEAD):
            chunk = order[start : start + _READ_AHEAD].tolist()

            def read(position: int, chunk: list[int] = chunk, start: int = start) -> dict[str, bytes] | str:
                try:
                    return _members(self.source, chunk[position], start + position)
                except DecodeError as error:
                    return reason_of(error, self.source.describe(chunk[position]))

            for index, found in zip(chunk, map_in_order(read, len(chunk)), strict=True):
                if isinstance(found, str):
                    self.skipped.append((self.source.describe(index), found))
                else:
                    yield index, found
            self.num_tried += len(chunk)
            if self.progress is not None:
                self.progress(self.num_tried, len(self.source))


class _Shard:
    """A tar file that is being written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # `close` closes it

    def size_with(self, members: Mapping[str, bytes]) -> int:
        """Return the final size in bytes if these were its last members."""
        added = sum(tarfile.BLOCKSIZE * (1 - -len(content) // tarfile.BLOCKSIZE) for content in members.values())
        end = self._tar.offset + added + 2 * tarfile.BLOCKSIZE
        return -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE

    def add(self, members: Mapping[str, bytes]) -> None:
        """Add the members of a sample, given as name -> content."""
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), _MTIME_S
            self._tar.addfile(member, io.BytesIO(content))

    def close(self) -> int:
        """Finish the file, and return its size in bytes."""
        self._tar.close()
        return self._path.stat().st_size


def _members(source: Source, index: int, number: int) -> dict[str, bytes]:
    """Return the members of a sample as name -> content. Raises DecodeError if its image cannot be read."""
    described = PurePosixPath(source.key(index))
    encoded = source.encoded(index)
    file, extension = io.BytesIO(), ""
    if isinstance(encoded, bytes):
        content, extension = encoded, _extension_of(encoded, described.suffix.casefold(), source.describe(index))
    elif isinstance(encoded, np.ndarray) and (encoded.dtype != np.uint8 or encoded.shape[2:] not in ((), (3,))):
        np.save(file, encoded, allow_pickle=False)
        content, extension = file.getvalue(), ".npy"
    if not extension:
        decode_image(encoded, where=source.describe(index)).save(file, "png")
        content, extension = file.getvalue(), ".png"
    slug = re.sub(r"[^A-Za-z0-9]+", "_", described.stem).strip("_")[:_SLUG_LENGTH]
    key = f"{number:08d}-{slug}" if slug else f"{number:08d}"
    members = {f"{key}{extension}": content, f"{key}.cls": b"%d" % source.labels[index]}
    facts: dict[str, str | float] = {}
    if source.groups is not None and source.groups[index]:
        facts["group"] = str(source.groups[index])
    if source.weights is not None:
        facts["weight"] = float(source.weights[index])
    return {**members, f"{key}.json": json.dumps(facts).encode()} if facts else members


def _extension_of(content: bytes, suffix: str, where: str) -> str:
    """Return the extension for an image file, by its name or else its format; empty if shards have none for that.

    Raises DecodeError if it has no suffix of an image and is none.
    """
    if suffix not in IMAGE_SUFFIXES:
        kind = read_header(content, where).kind.partition(" ")[0].casefold()
        suffix = ".npy" if kind == "array" else f".{kind}"
    extension = _EXTENSIONS.get(suffix, suffix)
    return extension if extension in IMAGE_SUFFIXES or extension == ".npy" else ""
