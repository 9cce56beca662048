"""Samples of a source -> their pixels and labels: in memory, in a file of the cache, or decoded when wanted."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous import processes
from vitreous.data.decoding.decode import reason_of
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.cache import AUTO, CacheUse, open_cached
from vitreous.data.pixels.pixel_file import PixelFile
from vitreous.data.sources import ArraySource, Source
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DataError, DecodeError
from vitreous.tensors import Labels, Pixels
from vitreous.transfer import to_device

_SMALLEST_STD = 1.0 / 255.0
_BYTES_PER_CHUNK = 16 << 20
_UNKNOWN_MEMORY_BYTES = 8 << 30


class Store(ABC):
    """Images of one size by position, `0 … len(store) − 1`, with their labels.

    Attributes:
        labels: Class indices, `[n]`, on the store's device.
        source_indices: Which sample of the source stands at each position, `[n]`.
        skipped: Samples that did not decode: (which, why).
        device: Where `take` puts its pixels.
        cache_use: What the cache did when the store was made; None where it was not asked.
    """

    cache_use: CacheUse | None = None

    def __init__(
        self,
        labels: Labels,
        source_indices: NDArray[np.int64],
        skipped: tuple[tuple[str, str], ...],
        device: torch.device,
    ) -> None:
        self.labels = labels.to(device)
        self.source_indices = source_indices
        self.skipped = skipped
        self.device = device

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def take(self, indices: NDArray[np.int64]) -> Pixels:
        """The images at these positions, uint8, `[len(indices), channels, height, width]`, on `device`."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "Store":
        """The same store, giving tensors on another device."""


class MemoryStore(Store):
    """All pixels in one tensor, `[n, channels, height, width]`; on an accelerator after `to`."""

    def __init__(
        self,
        pixels: Pixels,
        labels: Labels,
        source_indices: NDArray[np.int64] | None = None,
        skipped: tuple[tuple[str, str], ...] = (),
    ) -> None:
        positions = np.arange(len(labels), dtype=np.int64) if source_indices is None else source_indices
        super().__init__(labels, positions, skipped, pixels.device)
        self.pixels = pixels

    def take(self, indices: NDArray[np.int64]) -> Pixels:
        """Copied out of the tensor."""
        return self.pixels.index_select(0, to_device(torch.from_numpy(indices), self.device))

    def to(self, device: torch.device | str) -> "MemoryStore":
        """Moves pixels and labels."""
        return MemoryStore(self.pixels.to(device), self.labels.to(device), self.source_indices, self.skipped)


class LazyStore(Store):
    """Decodes what is taken, each time, by a few threads."""

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        source_indices: NDArray[np.int64],
        skipped: tuple[tuple[str, str], ...] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        labels = torch.from_numpy(source.labels[source_indices])
        super().__init__(labels, source_indices, skipped, torch.device(device))
        self._source = source
        self._preprocess = preprocess

    def take(self, indices: NDArray[np.int64]) -> Pixels:
        """Decoded now. Raises DecodeError where a file that decoded when the store was made no longer does."""
        wanted = self.source_indices[indices]
        images = map_in_order(lambda i: _decode(self._source, int(wanted[i]), self._preprocess), len(wanted))
        shape = (self._preprocess.in_chans, *self._preprocess.img_size)
        pixels = torch.stack(images) if images else torch.empty((0, *shape), dtype=torch.uint8)
        return to_device(pixels, self.device)

    def to(self, device: torch.device | str) -> "LazyStore":
        """Decodes on the CPU still, and hands over on `device`."""
        return LazyStore(self._source, self._preprocess, self.source_indices, self.skipped, device)


class MappedStore(Store):
    """Copies rows out of a file of the cache; a row that its checksum refuses is decoded again.

    Args:
        file: Row `i` is sample `wanted[i]` of the source.
        source: Where the samples came from.
        preprocess: Gives the pixels.
        wanted: The samples that were asked for; those that the file has no image of are left out of the store.
        device: As in `Store`.
    """

    def __init__(
        self,
        file: PixelFile,
        source: Source,
        preprocess: Preprocess,
        wanted: NDArray[np.int64],
        device: torch.device | str = "cpu",
    ) -> None:
        self._rows = np.setdiff1d(np.arange(len(wanted)), np.array(list(file.damaged), dtype=np.int64))
        skipped = tuple((source.describe(int(wanted[row])), reason) for row, reason in file.damaged.items())
        labels = torch.from_numpy(source.labels[wanted[self._rows]])
        super().__init__(labels, wanted[self._rows], skipped, torch.device(device))
        self._file = file
        self._source = source
        self._preprocess = preprocess
        self._wanted = wanted

    def take(self, indices: NDArray[np.int64]) -> Pixels:
        """Copied out of the file. Raises DecodeError where a row is damaged and its sample can no longer be read."""
        copied, wrong = self._file.take(self._rows[indices])
        pixels = torch.from_numpy(copied)
        for position in wrong:
            self._file.discard()
            pixels[position] = _decode(self._source, int(self.source_indices[indices[position]]), self._preprocess)
        return to_device(pixels, self.device)

    def to(self, device: torch.device | str) -> "MappedStore":
        """Reads on the CPU still, and hands over on `device`."""
        return MappedStore(self._file, self._source, self._preprocess, self._wanted, device)

    def in_memory(self) -> MemoryStore:
        """All of it in one tensor."""
        pixels = torch.empty((len(self), self._preprocess.in_chans, *self._preprocess.img_size), dtype=torch.uint8)
        for part in _chunks(len(self), pixels[:1].numel()):
            pixels[part[0] : part[-1] + 1] = self.take(part)
        return MemoryStore(pixels, self.labels, self.source_indices, self.skipped)


def load_store(
    source: Source,
    indices: NDArray[np.int64],
    preprocess: Preprocess,
    *,
    memory_limit_bytes: int | None = None,
    digests: NDArray[np.uint8] | None = None,
    cache: str | None = AUTO,
    progress: Progress | None = None,
) -> Store:
    """Decode chosen samples of a source. Those that do not decode are dropped, and listed in the store's `skipped`.

    With the cache each is decoded once for all runs. Without it, and over the limit, every sample is decoded once all
    the same, so that a damaged file is known now and not mid-training.

    Args:
        source: Where the samples come from.
        indices: Which of them, e.g. a split of a `Survey`.
        preprocess: Gives the pixels; its mean and std are not needed yet.
        memory_limit_bytes: More than this stays outside the memory; None: a quarter of the machine's, divided among the
            processes that `--nproc` starts.
        digests: A hash of each chosen sample's content, `[n, 16]`, as a `Survey` has them; None: no cache.
        cache: The cache's folder; `auto`: this user's; None: no cache.
        progress: Called with (done, total).

    Returns:
        A MemoryStore; over the limit a MappedStore, or without the cache a LazyStore; empty where none decodes.
    """
    if isinstance(source, ArraySource) and preprocess.takes_as_it_is(source.images.shape[1:]):
        if progress is not None:
            progress(len(indices), len(indices))
        return _copy(source, indices)
    limit = machine_memory_bytes() // processes.local_count() // 4 if memory_limit_bytes is None else memory_limit_bytes
    in_memory = len(indices) * preprocess.in_chans * int(np.prod(preprocess.img_size)) <= limit
    if digests is None or cache is None or not len(indices):
        return _decode_all(source, indices, preprocess, in_memory, progress)
    file, use = open_cached(source, indices, preprocess, digests, folder=cache, progress=progress)
    if file is None:
        store: Store = _decode_all(source, indices, preprocess, in_memory, progress)
    else:
        mapped = MappedStore(file, source, preprocess, indices)
        store = mapped.in_memory() if in_memory else mapped
    store.cache_use = use
    return store


def _decode_all(
    source: Source,
    indices: NDArray[np.int64],
    preprocess: Preprocess,
    in_memory: bool,
    progress: Progress | None,
) -> Store:
    """Without the cache."""
    shape = (len(indices), preprocess.in_chans, *preprocess.img_size)
    pixels = torch.empty(shape if in_memory else (0, *shape[1:]), dtype=torch.uint8)

    def decode_one(position: int) -> str | None:
        try:
            image = _decode(source, int(indices[position]), preprocess)
        except DecodeError as error:
            return reason_of(error, source.describe(int(indices[position])))
        if in_memory:
            pixels[position] = image
        return None

    reasons = map_in_order(decode_one, len(indices), progress)
    good = np.array([position for position, reason in enumerate(reasons) if reason is None], dtype=np.int64)
    skipped = tuple((source.describe(int(i)), r) for i, r in zip(indices, reasons, strict=True) if r is not None)
    if not in_memory:
        return LazyStore(source, preprocess, indices[good], skipped)
    kept = pixels if not skipped else pixels.index_select(0, torch.from_numpy(good))
    return MemoryStore(kept, torch.from_numpy(source.labels[indices[good]]), indices[good], skipped)


def measure_mean_std(store: Store) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, counted by grey level: exact.

    Args:
        store: The training images, at least one.

    Returns:
        Mean in [0, 1] and std, at least 1/255 (one grey level), of pixels / 255.

    Raises:
        DataError: The store is empty.
    """
    if len(store) == 0:
        raise DataError("data: 0 training images; mean and std cannot be measured")
    first = store.take(np.zeros(1, dtype=np.int64))
    counts = np.zeros((first.shape[1], 256), dtype=np.int64)
    for part in _chunks(len(store), first.numel()):
        pixels = store.take(part)
        by_channel = [torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)]
        counts += torch.stack(by_channel).cpu().numpy()
    shares = counts / counts.sum(axis=1, keepdims=True)
    levels = np.arange(256, dtype=np.float64) / 255.0
    mean = shares @ levels
    std = np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1)).clip(min=_SMALLEST_STD)
    return tuple(mean.tolist()), tuple(std.tolist())


def machine_memory_bytes() -> int:
    """The memory this process may use: the machine's, or its container's where that is less."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        memory = _UNKNOWN_MEMORY_BYTES
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            memory = min(memory, int(limit.read_text()))
        except (OSError, ValueError):  # no container, or one without a limit ("max")
            continue
    return memory


def _chunks(count: int, image_bytes: int) -> Iterator[NDArray[np.int64]]:
    """All positions, a few megabytes of images at a time."""
    size = max(1, _BYTES_PER_CHUNK // max(1, image_bytes))
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count), dtype=np.int64)


def _copy(source: ArraySource, indices: NDArray[np.int64]) -> MemoryStore:
    """Arrays of the right size, in memory already, are not decoded one by one (MNIST: 0.1 s instead of 4 s)."""
    images = torch.from_numpy(source.images[indices])
    pixels = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return MemoryStore(pixels, torch.from_numpy(source.labels[indices]), indices)


def _decode(source: Source, index: int, preprocess: Preprocess) -> Tensor:
    return preprocess.pixels(source.encoded(index), where=source.describe(index))
