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
from vitreous.data.sampling import check_weights, draw_order, earlier_showings
from vitreous.data.store import Store
from vitreous.errors import ConfigError, DataError
from vitreous.seeding import derive
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

    Every epoch shows every image once, in its own order; with `weights`, as many images, but some more often (see
    `draw_order`). It is cut into as few batches of at most `batch_size` as possible, of nearly equal size: none is
    dropped, and a small set gives one small batch, not none.

    With `repeats` an image stands so many times in its batch, each copy varied in its own way. An epoch still is as
    many showings as there are images; every image comes once in a *round* of `repeats` epochs.

    Args:
        store: The training images, at least one.
        preprocess: Normalises.
        augment: Varies.
        batch_size: The most images in a batch, copies included.
        seed: Decides order and variation.
        weights: How often each image is shown relative to the others, `[len(store)]`; None: all equally often.
        repeats: Copies of an image in its batch, at least 1.

    Attributes:
        steps_per_epoch: How many batches show as many images as there are; with `repeats` it may be a fraction.

    Raises:
        DataError: The store is empty, or `weights` that do not fit it.
        ConfigError: `batch_size` or `repeats` is below 1, or copies of one image do not fit into a batch.

    Source: Repeated augmentation: Hoffer et al. 2019 (1901.09335), section 2, and DeiT (2012.12877), who show a third
    of the images an epoch, drawn anew, and drop what does not fill a batch; our rounds leave none out.
    """

    def __init__(
        self,
        store: Store,
        preprocess: Preprocess,
        augment: Augment,
        batch_size: int,
        seed: int,
        weights: NDArray[np.float64] | None = None,
        repeats: int = 1,
    ) -> None:
        _check(store, batch_size, repeats)
        if weights is not None:
            check_weights(weights, len(store))
        self._store = store
        self._preprocess = preprocess
        self._augment = augment
        self._seed = seed
        self._weights = weights
        self._repeats = repeats
        self._all_labels = store.labels.cpu().numpy()
        self._steps_per_round = math.ceil(len(store) / (batch_size // repeats))
        self.steps_per_epoch: float = self._steps_per_round if repeats == 1 else self._steps_per_round / repeats
        self._order = (-1, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    def batch(self, step: int, attempt: int = 0) -> Batch:
        """The batch of a step, counted from 0 over all epochs.

        Args:
            step: Any; the epoch is `step / steps_per_epoch`, rounded down.
            attempt: 0; after a failed step 1, 2, …: the same images, varied anew.

        Returns:
            The batch, on the store's device.
        """
        number, place = divmod(step, self._steps_per_round)
        order, earlier = self._order_of(number)
        num = len(self._store)
        cuts = num * np.arange(self._steps_per_round + 1) // self._steps_per_round
        part = slice(cuts[place], cuts[place + 1])
        pixels = self._store.take(order[part])
        indices = order[part].repeat(self._repeats)
        # Showings of one image in a round draw by numbers of their own; the first by its position in the store.
        copies = (earlier[part, None] * self._repeats + np.arange(self._repeats)).reshape(-1)
        seed = derive(self._seed, "augment", number, *([attempt] if attempt else []))
        if self._repeats > 1:
            pixels = pixels.repeat_interleave(self._repeats, dim=0)
        varied = self._augment(pixels, indices + num * copies, seed)
        return Batch(self._preprocess.normalize(varied), _labels(self._store, indices), indices)

    def _order_of(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order of a round, and how often each entry stood in it before."""
        # One tuple, replaced whole: a prefetching thread may ask at the same time.
        known, order, earlier = self._order
        if known != number:
            order = draw_order(derive(self._seed, "order", number), self._all_labels, self._weights)
            earlier = np.zeros_like(order) if self._weights is None else earlier_showings(order)
            self._order = (number, order, earlier)
        return order, earlier


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
    def steps_per_epoch(self) -> float:
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


def _check(store: Store, batch_size: int, repeats: int) -> None:
    if len(store) == 0:
        raise DataError("data: 0 training images; a TrainLoader needs at least one")
    _check_batch_size(batch_size)
    if not 1 <= repeats <= batch_size:
        raise ConfigError(f"data.repeats={repeats}: must be from 1 to data.batch_size={batch_size}; use 1")


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"data.batch_size={batch_size}: must be at least 1; use 64, or what memory allows")
