"""Store -> batches: any training step's by its number, or all images in order for evaluation."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.data.augment import Augment
from vitreous.data.preprocess import Preprocess
from vitreous.data.store import Store
from vitreous.errors import ConfigError, DataError
from vitreous.seeding import derive, permutation
from vitreous.tensors import Images, Labels


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step sees.

    Attributes:
        images: Normalised, `[batch, channels, height, width]`.
        labels: Class indices, `[batch]`.
        indices: Positions in the store, `[batch]`.
    """

    images: Images
    labels: Labels
    indices: NDArray[np.int64]


class TrainLoader:
    """Random access to training batches: step `s` is the same whenever and wherever it is asked for.

    Every epoch shows every image once, in its own order. It is cut into as few batches of at most `batch_size` as
    possible, of nearly equal size: none is dropped, and a small set gives one small batch, not none.

    Args:
        store: The training images, at least one.
        preprocess: Normalises.
        augment: Varies.
        batch_size: The most images in a batch.
        seed: Decides order and variation.

    Raises:
        DataError: The store is empty.
        ConfigError: `batch_size` is below 1.
    """

    def __init__(self, store: Store, preprocess: Preprocess, augment: Augment, batch_size: int, seed: int) -> None:
        _check(store, batch_size)
        self._store = store
        self._preprocess = preprocess
        self._augment = augment
        self._seed = seed
        self.steps_per_epoch = math.ceil(len(store) / batch_size)
        self._order = (-1, np.empty(0, dtype=np.int64))

    def batch(self, step: int, attempt: int = 0) -> Batch:
        """The batch of a step, counted from 0 over all epochs.

        Args:
            step: Any; the epoch is `step // steps_per_epoch`.
            attempt: 0; after a failed step 1, 2, …: the same images, varied anew.

        Returns:
            The batch, on the store's device.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self._order_of(epoch)
        cuts = len(order) * np.arange(self.steps_per_epoch + 1) // self.steps_per_epoch
        indices = order[cuts[place] : cuts[place + 1]]
        seed = derive(self._seed, "augment", epoch, *([attempt] if attempt else []))
        varied = self._augment(self._store.take(indices), indices, seed)
        return Batch(self._preprocess.normalize(varied), _labels(self._store, indices), indices)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        # One tuple, replaced whole: a prefetching thread may ask at the same time.
        known, order = self._order
        if known != epoch:
            order = permutation(derive(self._seed, "order", epoch), len(self._store))
            self._order = (epoch, order)
        return order


class EvalLoader:
    """All images in order, not varied; `len` gives the number of batches, 0 for an empty store.

    Args:
        store: The images.
        preprocess: Normalises.
        batch_size: Images a batch; the last may hold fewer.

    Raises:
        ConfigError: `batch_size` is below 1.
    """

    def __init__(self, store: Store, preprocess: Preprocess, batch_size: int) -> None:
        _check_batch_size(batch_size)
        self._store = store
        self._preprocess = preprocess
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._store) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._store), self._batch_size):
            indices = np.arange(start, min(start + self._batch_size, len(self._store)), dtype=np.int64)
            yield Batch(self._preprocess.normalize(self._store.take(indices)), _labels(self._store, indices), indices)


class Prefetcher:
    """A TrainLoader that prepares the next batches in a thread while the current one trains; for a LazyStore.

    Leave it by `with` or `close`: the thread ends.

    Args:
        loader: Whose batches.
        num_ahead: How many batches are prepared, at least 1.

    Raises:
        ConfigError: `num_ahead` is below 1.
    """

    def __init__(self, loader: TrainLoader, num_ahead: int = 2) -> None:
        if num_ahead < 1:
            raise ConfigError(f"num_ahead={num_ahead}: must be at least 1; use the loader itself for no prefetching")
        self._loader = loader
        self._num_ahead = num_ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="vitreous-prefetch")
        self._prepared: dict[int, Future[Batch]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """As the loader's."""
        return self._loader.steps_per_epoch

    def batch(self, step: int, attempt: int = 0) -> Batch:
        """As the loader's; an error met while preparing is raised when its batch is asked for."""
        if attempt:
            return self._loader.batch(step, attempt)
        window = range(step, step + self._num_ahead + 1)
        for other in [key for key in self._prepared if key not in window]:
            self._prepared.pop(other).cancel()
        for wanted in window:
            if wanted not in self._prepared:
                self._prepared[wanted] = self._pool.submit(self._loader.batch, wanted)
        return self._prepared.pop(step).result()

    def close(self) -> None:
        """End the thread; batches that were prepared are dropped."""
        self._prepared.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _labels(store: Store, indices: NDArray[np.int64]) -> Labels:
    return store.labels[torch.from_numpy(indices).to(store.device)]


def _check(store: Store, batch_size: int) -> None:
    if len(store) == 0:
        raise DataError("data: 0 training images; a TrainLoader needs at least one")
    _check_batch_size(batch_size)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"data.batch_size={batch_size}: must be at least 1; use 64, or what memory allows")
