"""Samples of a source -> their pixels and labels: in memory, in a cache file, or decoded on demand."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous import processes
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.cache import AUTO, CacheUse, open_cached
from vitreous.data.pixels.decode_samples import decode_sample, decode_samples
from vitreous.data.pixels.pixel_file import PixelFile
from vitreous.data.sources import ArraySource, Source
from vitreous.data.workers import Progress, map_in_order
from vitreous.tensors import Pixels, StoredLabels
from vitreous.transfer import to_device

_SMALLEST_STD = 1.0 / 255.0
_BYTES_PER_CHUNK = 16 << 20
_UNKNOWN_MEMORY_BYTES = 8 << 30


class Store(ABC):
    """Images of one size and their labels, by position from 0 to `len(store) − 1`.

    Labels are class indices, `[n]`, or a truth value for each class, `[n, classes]`. `source_indices` has the sample of
    the source at each position, `[n]`, and `skipped` the samples that did not decode: (which, why). `cache_use` is None
    if the cache was not used.
    """

    cache_use: CacheUse | None = None

    def __init__(
        self,
        labels: StoredLabels,
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
        """Return the images at these positions, uint8, `[len(indices), channels, height, width]`, on `device`."""

    def to(self, device: torch.device | str) -> "Store":
        """Return a store of the same images that gives tensors on another device."""
        moved = copy.copy(self)
        moved.device, moved.labels = torch.device(device), self.labels.to(device)
        return moved


class MemoryStore(Store):
    """All pixels in one tensor, `[n, channels, height, width]`, which `to` moves to an accelerator."""

    def __init__(
        self,
        pixels: Pixels,
        labels: StoredLabels,
        source_indices: NDArray[np.int64] | None = None,
        skipped: tuple[tuple[str, str], ...] = (),
    ) -> None:
        positions = np.arange(len(labels), dtype=np.int64) if source_indices is None else source_indices
        super().__init__(labels, positions, skipped, pixels.device)
        self.pixels = pixels

    def take(self, indices: NDArray[np.int64]) -> Pixels:
        """Copy images out of the tensor."""
        return self.pixels.index_select(0, to_device(torch.from_numpy(indices), self.device))

    def to(self, device: torch.device | str) -> "MemoryStore":
        """Return a store with pixels and labels on another device."""
        return MemoryStore(self.pixels.to(device), self.labels, self.source_indices, self.skipped)


class LazyStore(Store):
    """A store that decodes images in several threads each time they are taken."""

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        source_indices: NDArray[np.int64],
        skipped: tuple[tuple[str, str], ...] = (),
    ) -> None:
        labels = torch.from_numpy(source.labels[source_indices])
        super().__init__(labels, source_indices, skipped, torch.device("cpu"))
        self._source = source
        self._preprocess = preprocess

    def take(self, indices: NDArray[np.int64]) -> Pixels:
        """Decode images. Raises DecodeError if a file that decoded earlier no longer does."""
        wanted = self.source_indices[indices]
        images = map_in_order(lambda i: decode_sample(self._source, int(wanted[i]), self._preprocess), len(wanted))
        shape = (self._preprocess.in_chans, *self._preprocess.img_size)
        pixels = torch.stack(images) if images else torch.empty((0, *shape), dtype=torch.uint8)
        return to_device(pixels, self.device)


class MappedStore(Store):
    """A store that copies rows out of a cache file; a row with a wrong checksum is decoded again.

    Row `i` of the file holds the pixels of sample `samples[i]` of the source; the store skips those that did not
    decode.
    """

    def __init__(self, file: PixelFile, source: Source, preprocess: Preprocess, samples: NDArray[np.int64]) -> None:
        self._rows = np.setdiff1d(np.arange(len(samples)), np.array(list(file.damaged), dtype=np.int64))
        skipped = tuple((source.describe(int(samples[row])), reason) for row, reason in file.damaged.items())
        labels = torch.from_numpy(source.labels[samples[self._rows]])
        super().__init__(labels, samples[self._rows], skipped, torch.device("cpu"))
        self._file = file
        self._source = source
        self._preprocess = preprocess

    def take(self, indices: NDArray[np.int64]) -> Pixels:
        """Copy images out of the file. Raises DecodeError if a row is damaged and its sample cannot be decoded."""
        copied, wrong = self._file.take(self._rows[indices])
        pixels = torch.from_numpy(copied)
        for position in wrong:
            self._file.discard()
            pixels[position] = decode_sample(
                self._source, int(self.source_indices[indices[position]]), self._preprocess
            )
        return to_device(pixels, self.device)

    def in_memory(self) -> MemoryStore:
        """Return a store with all pixels in one tensor."""
        pixels = torch.empty((len(self), self._preprocess.in_chans, *self._preprocess.img_size), dtype=torch.uint8)
        for positions in _chunks(len(self), pixels[:1].numel()):
            pixels[positions[0] : positions[-1] + 1] = self.take(positions)
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
    """Decode samples of a source; those that do not decode are listed in the store's `skipped`.

    With the cache, each sample is decoded once for all runs. Without it, each sample is decoded once now even if the
    pixels do not fit into memory, so that damaged files are found before training starts.

    Pixels of at most `memory_limit_bytes` are kept in memory; None: a quarter of the machine's memory, divided by the
    number of processes that `--nproc` starts. `digests` are hashes of the contents of the chosen samples, `[n, 16]`, as
    in a `Survey`. Without them, or without `cache`, there is no cache; its folder `auto` is that of this user.

    Returns:
        A MemoryStore if the pixels fit into memory, else a MappedStore, or a LazyStore without the cache. It is empty
        if no sample decodes.
    """
    if isinstance(source, ArraySource) and preprocess.leaves_unchanged(source.images.shape[1:]):
        if progress is not None:
            progress(len(indices), len(indices))
        return _copy_arrays(source, indices)
    limit = machine_memory_bytes() // processes.local_count() // 4 if memory_limit_bytes is None else memory_limit_bytes
    in_memory = len(indices) * preprocess.in_chans * int(np.prod(preprocess.img_size)) <= limit
    if digests is None or cache is None or not len(indices):
        return _load_without_cache(source, indices, preprocess, in_memory, progress)
    file, use = open_cached(source, indices, preprocess, digests, folder=cache, progress=progress)
    if file is None:
        store: Store = _load_without_cache(source, indices, preprocess, in_memory, progress)
    else:
        mapped = MappedStore(file, source, preprocess, indices)
        store = mapped.in_memory() if in_memory else mapped
    store.cache_use = use
    return store


def _load_without_cache(
    source: Source, indices: NDArray[np.int64], preprocess: Preprocess, in_memory: bool, progress: Progress | None
) -> Store:
    shape = (len(indices), preprocess.in_chans, *preprocess.img_size)
    pixels = torch.empty(shape if in_memory else (0, *shape[1:]), dtype=torch.uint8)

    def keep(position: int, image: NDArray[np.uint8]) -> None:
        if in_memory:
            pixels[position] = torch.from_numpy(image)

    reasons = decode_samples(source, indices, preprocess, keep, progress=progress)
    good = np.setdiff1d(np.arange(len(indices)), np.array(list(reasons), dtype=np.int64))
    skipped = tuple((source.describe(int(indices[position])), reason) for position, reason in reasons.items())
    if not in_memory:
        return LazyStore(source, preprocess, indices[good], skipped)
    kept = pixels if not skipped else pixels.index_select(0, torch.from_numpy(good))
    return MemoryStore(kept, torch.from_numpy(source.labels[indices[good]]), indices[good], skipped)


def measure_mean_std(store: Store) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the exact mean and standard deviation of each channel of pixels / 255, from counts of its 256 levels.

    The mean is in [0, 1], the standard deviation at least 1/255 (one level).
    """
    first = store.take(np.zeros(1, dtype=np.int64))
    counts = np.zeros((first.shape[1], 256), dtype=np.int64)
    for positions in _chunks(len(store), first.numel()):
        pixels = store.take(positions)
        by_channel = [torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)]
        counts += torch.stack(by_channel).cpu().numpy()
    shares = counts / counts.sum(axis=1, keepdims=True)
    levels = np.arange(256, dtype=np.float64) / 255.0
    mean = shares @ levels
    std = np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1)).clip(min=_SMALLEST_STD)
    return tuple(mean.tolist()), tuple(std.tolist())


def machine_memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or less if its container has a limit."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        memory = _UNKNOWN_MEMORY_BYTES
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            memory = min(memory, int(limit.read_text()))
        except (OSError, ValueError):  # not in a container, or the container has no limit ("max")
            continue
    return memory


def _chunks(count: int, image_bytes: int) -> Iterator[NDArray[np.int64]]:
    """Yield all positions in order, a few megabytes of images at a time."""
    size = max(1, _BYTES_PER_CHUNK // max(1, image_bytes))
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count), dtype=np.int64)


def _copy_arrays(source: ArraySource, indices: NDArray[np.int64]) -> MemoryStore:
    """Copy arrays of the right size all at once, which is faster than one by one (MNIST: 0.1 s instead of 4 s)."""
    images = torch.from_numpy(source.images[indices])
    pixels = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return MemoryStore(pixels, torch.from_numpy(source.labels[indices]), indices)
