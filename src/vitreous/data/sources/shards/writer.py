"""Source -> a folder of tar files in WebDataset's layout, with the bytes of the images as they are."""

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
from PIL import Image

from vitreous import atomic
from vitreous.data.decoding.decode import decode_image, reason_of
from vitreous.data.sources import SPLITS, Source
from vitreous.data.sources.folder import is_image_name
from vitreous.data.sources.shards.source import INFO_NAME
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import ConfigError, DataError, DecodeError
from vitreous.seeding import derive, permutation

MAX_SAMPLES = 10_000
MAX_BYTES = 500_000_000

WITHOUT_SPLIT = "images"
"""What shards are called whose samples are yet to be split."""

_READ_AHEAD = 32
_MTIME_S = 315_532_800
"""1980: the same each time, and no program calls it implausible."""
_EXTENSIONS = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".mpo": ".jpg", ".tiff": ".tif"}
"""Other programs look for the usual spelling."""
_SLUG_LENGTH = 48


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: The folder.
        num_samples: Images in all shards.
        shards: Names of the files, by split; `WITHOUT_SPLIT` for what is yet to be split.
        size_bytes: Of all shards.
        skipped: What could not be read and was left out: (which, why).
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
    """Write each split into tars of its own, in an order that mixes the classes, so that others can stream them.

    A sample is `<number>-<its old name>.jpg` (or what it is) with `.cls`, the index of its class, and `.json` where it
    has a group or a weight. Images in files keep their bytes; images in memory become PNG. Names of classes and counts
    stand in `INFO_NAME`. The same samples give the same bytes, and a stopped or failed writing leaves nothing behind.

    Args:
        source: What to write.
        out: A folder that does not exist, or is empty; the one above is made where needed.
        max_samples: The most images in a tar.
        max_bytes: The largest tar, but for one that holds a single larger image.
        progress: Called with (done, total).

    Returns:
        What was written.

    Raises:
        ConfigError: `max_samples` or `max_bytes` below 1, or `out` holds something.
        DataError: No image could be read.
        SaveError: The folder could not be written.
    """
    for key, got in (("max_samples", max_samples), ("max_bytes", max_bytes)):
        if got < 1:
            raise ConfigError(f"{key}={got}: must be at least 1; leave it out for what suits most")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out={out}: is there already and not empty; give a new folder, or remove it first")
    written: list[Written] = []

    def fill(folder: Path) -> None:
        writer = _Writer(source, folder, max_samples, max_bytes, progress)
        for split in (*SPLITS, ""):
            writer.write_split(split)
        if not writer.num_samples:
            first = f" (the first, {writer.skipped[0][0]}: {writer.skipped[0][1]})" if writer.skipped else ""
            raise DataError(f"data.source={source.name}: none of {len(source)} images can be read{first}; check them")
        (folder / INFO_NAME).write_text(json.dumps(writer.info(), ensure_ascii=False, indent=1) + "\n", "utf-8")
        shards = {split: list(found["filenames"]) for split, found in writer.splits.items()}
        written.append(Written(out, writer.num_samples, shards, writer.size_bytes, tuple(writer.skipped)))

    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_folder(out, fill)
    return written[0]


class _Writer:
    """Writes splits into a folder, and counts."""

    def __init__(
        self, source: Source, folder: Path, max_samples: int, max_bytes: int, progress: Progress | None
    ) -> None:
        self.source, self.folder = source, folder
        self.max_samples, self.max_bytes, self.progress = max_samples, max_bytes, progress
        self.num_samples = self.size_bytes = self.num_tried = 0
        self.splits: dict[str, dict[str, Any]] = {}
        self.skipped: list[tuple[str, str]] = []

    def write_split(self, split: str) -> None:
        """One split; an empty name for what has none."""
        name = split or WITHOUT_SPLIT
        counts = np.zeros(len(self.source.classes), dtype=np.int64)
        files, lengths = list[str](), list[int]()
        shard: _Shard | None = None
        try:
            for index, parts in self._samples(name, np.flatnonzero(self.source.splits == split)):
                if shard is not None and (lengths[-1] == self.max_samples or shard.size_with(parts) > self.max_bytes):
                    self.size_bytes += shard.close()
                    shard = None
                if shard is None:
                    files.append(f"{name}-{len(files):06d}.tar")
                    lengths.append(0)
                    shard = _Shard(self.folder / files[-1])
                shard.add(parts)
                lengths[-1] += 1
                counts[self.source.labels[index]] += 1
        finally:
            if shard is not None:
                self.size_bytes += shard.close()
        if files:
            num, described = sum(lengths), {"filenames": files, "shard_lengths": lengths}
            self.splits[name] = {"name": name, "num_samples": num, **described, "class_counts": counts.tolist()}
            self.num_samples += num

    def info(self) -> dict[str, Any]:
        """What `INFO_NAME` says."""
        share = {} if self.source.test_ratio is None else {"test_share": self.source.test_ratio}
        return {"classes": list(self.source.classes), **share, "splits": self.splits}

    def _samples(self, name: str, members: NDArray[np.int64]) -> Iterator[tuple[int, dict[str, bytes]]]:
        """Each readable sample and its files, mixed; a few are read at once."""
        order = members[permutation(derive(0, "shard", name), len(members))]
        for start in range(0, len(order), _READ_AHEAD):
            part = order[start : start + _READ_AHEAD].tolist()

            def read(place: int, part: list[int] = part, start: int = start) -> dict[str, bytes] | str:
                try:
                    return _files(self.source, part[place], start + place)
                except DecodeError as error:
                    return reason_of(error, self.source.describe(part[place]))

            for index, found in zip(part, map_in_order(read, len(part)), strict=True):
                if isinstance(found, str):
                    self.skipped.append((self.source.describe(index), found))
                else:
                    yield index, found
            self.num_tried += len(part)
            if self.progress is not None:
                self.progress(self.num_tried, len(self.source))


class _Shard:
    """A tar that is being written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # `close` closes it

    def size_with(self, parts: Mapping[str, bytes]) -> int:
        """In bytes, were these its last."""
        members = sum(tarfile.BLOCKSIZE * (1 - -len(content) // tarfile.BLOCKSIZE) for content in parts.values())
        end = self._tar.offset + members + 2 * tarfile.BLOCKSIZE
        return -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE

    def add(self, parts: Mapping[str, bytes]) -> None:
        """A sample."""
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), _MTIME_S
            self._tar.addfile(member, io.BytesIO(content))

    def close(self) -> int:
        """Write its end; returns its size in bytes."""
        self._tar.close()
        return self._path.stat().st_size


def _files(source: Source, index: int, number: int) -> dict[str, bytes]:
    """A sample's files by name. Raises DecodeError if its image cannot be read."""
    described = PurePosixPath(source.describe(index))
    encoded = source.encoded(index)
    if isinstance(encoded, bytes):
        content, extension = encoded, described.suffix.casefold() if is_image_name(described.name) else ""
    else:
        file = io.BytesIO()
        decode_image(encoded, where=source.describe(index)).save(file, "png")
        content, extension = file.getvalue(), ".png"
    extension = extension or _kind(content, source.describe(index))
    slug = re.sub(r"[^A-Za-z0-9]+", "_", described.stem).strip("_")[:_SLUG_LENGTH]
    key = f"{number:08d}-{slug}" if slug else f"{number:08d}"
    files = {f"{key}{_EXTENSIONS.get(extension, extension)}": content, f"{key}.cls": b"%d" % source.labels[index]}
    facts: dict[str, str | float] = {}
    if source.groups is not None and source.groups[index]:
        facts["group"] = str(source.groups[index])
    if source.weights is not None:
        facts["weight"] = float(source.weights[index])
    return {**files, f"{key}.json": json.dumps(facts).encode()} if facts else files


def _kind(content: bytes, where: str) -> str:
    """The extension of an image that has no name. Raises DecodeError if it is none."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return f".{image.format}".casefold()
    except Exception as error:  # Pillow raises whatever its many readers do
        raise DecodeError(f"{where}: is no image") from error
