"""Store -> batches: any training step's by its number, or all images in order for evaluation."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.augmentation.augment import Augment
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.store import Store
from vitreous.data.sampling import check_weights, draw_order, earlier_showings
from vitreous.data.workers import compute_parts
from vitreous.errors import ConfigError, DataError
from vitreous.seeding import derive
from vitreous.tensors import Images, Labels, Pixels
from vitreous.transfer import to_device

BYTES_AT_ONCE = 4 * 2**20
"""Of images that are varied together on a CPU, as floats."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step sees.

    Attributes:
        images: Normalised, `[batch, channels, height, width]`; or what was computed of them, `[batch, width]`.
        labels: Class indices, `[batch]`.
        indices: Positions in the store, `[batch]`.
    """

    images: Images | Float[Tensor, "batch width"]
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
        share: (r, n): of each batch only part r of n nearly equal ones, r from 0; all parts together are the batch.

    Attributes:
        steps_per_epoch: How many batches show as many images as there are; with `repeats` it may be a fraction.
        least_images: The fewest that any part of any batch has.

    Raises:
        DataError: The store is empty, or `weights` that do not fit it.
        ConfigError: `batch_size` or `repeats` is below 1, copies of one image do not fit into a batch, or there are
            more parts than images in a batch.

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
        share: tuple[int, int] = (0, 1),
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
        self._share = share
        self._all_labels = store.labels.cpu().numpy()
        self._steps_per_round = math.ceil(len(store) / (batch_size // repeats))
        self.least_images = len(store) // self._steps_per_round // share[1] * repeats
        if self.least_images == 0:
            fewest = len(store) // self._steps_per_round
            raise ConfigError(
                f"data.batch_size={batch_size}: {len(store)} images in batches of {fewest} leave some of {share[1]} "
                f"processes without any; use at most {fewest} processes"
            )
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
        number, part = self._place_of(step)
        order, earlier = self._order_of(number)
        num = len(self._store)
        pixels = self._store.take(order[part])
        indices = order[part].repeat(self._repeats)
        # Showings of one image in a round draw by numbers of their own; the first by its position in the store.
        copies = (earlier[part, None] * self._repeats + np.arange(self._repeats)).reshape(-1)
        seed = derive(self._seed, "augment", number, *([attempt] if attempt else []))
        if self._repeats > 1:
            pixels = pixels.repeat_interleave(self._repeats, dim=0)
        images = self._varied(pixels, indices + num * copies, seed)
        return Batch(images, _labels(self._store, indices), indices)

    def features_batch(self, features: Float[Tensor, "images width"], step: int) -> Batch:
        """The batch of a step with what was computed of each image before in place of the image.

        Args:
            features: One row for each image of the store.
            step: As for `batch`.
        """
        number, part = self._place_of(step)
        indices = self._order_of(number)[0][part].repeat(self._repeats)
        rows = features[to_device(torch.from_numpy(indices), features.device)]
        return Batch(rows, _labels(self._store, indices), indices)

    def each_once(self, batch_size: int) -> "EvalLoader":
        """All images in the order of the store, not varied."""
        return EvalLoader(self._store, self._preprocess, batch_size)

    def _varied(self, pixels: Pixels, numbers: NDArray[np.int64], seed: int) -> Images:
        """Varied and normalised; on a CPU a few at a time, so that what lies between stays in its cache."""
        if pixels.device.type != "cpu":
            return self._preprocess.normalize(self._augment(pixels, numbers, seed))
        images = torch.empty(pixels.shape, dtype=torch.float32)

        def vary(part: tuple[Tensor, Tensor, NDArray[np.int64]]) -> None:
            place, few, few_numbers = part
            place.copy_(self._preprocess.normalize(self._augment(few, few_numbers, seed)))

        num = min(len(images), math.ceil(images.nbytes / BYTES_AT_ONCE))
        parts = zip(images.tensor_split(num), pixels.tensor_split(num), np.array_split(numbers, num), strict=True)
        compute_parts(vary, list(parts))
        return images

    def _place_of(self, step: int) -> tuple[int, slice]:
        """The round of a step, and its stretch of the round's order, or this part of that."""
        number, place = divmod(step, self._steps_per_round)
        cuts = len(self._store) * np.arange(self._steps_per_round + 1) // self._steps_per_round
        start, num = cuts[place], cuts[place + 1] - cuts[place]
        which, of = self._share
        return number, slice(start + num * which // of, start + num * (which + 1) // of)

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
        share: (r, n): of each batch only part r of n nearly equal ones, r from 0; the last may hold none.

    Raises:
        ConfigError: `batch_size` is below 1.
    """

    def __init__(self, store: Store, preprocess: Preprocess, batch_size: int, share: tuple[int, int] = (0, 1)) -> None:
        _check_batch_size(batch_size)
        self._share = share
        self._store = store
        self._preprocess = preprocess
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._store) / self._batch_size)

    def positions(self) -> Iterator[NDArray[np.int64]]:
        """Of each batch, where its images stand in the store."""
        for start in range(0, len(self._store), self._batch_size):
            num, (which, of) = min(self._batch_size, len(self._store) - start), self._share
            yield np.arange(start + num * which // of, start + num * (which + 1) // of, dtype=np.int64)

    def __iter__(self) -> Iterator[Batch]:
        for indices in self.positions():
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
    return store.labels[to_device(torch.from_numpy(indices), store.device)]


def _check(store: Store, batch_size: int, repeats: int) -> None:
    if len(store) == 0:
        raise DataError("data: 0 training images; a TrainLoader needs at least one")
    _check_batch_size(batch_size)
    if not 1 <= repeats <= batch_size:
        raise ConfigError(f"data.repeats={repeats}: must be from 1 to data.batch_size={batch_size}; use 1")


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"data.batch_size={batch_size}: must be at least 1; use 64, or what memory allows")
