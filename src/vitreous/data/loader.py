"""Store -> batches: any training step by its number, or all images in order for evaluation."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.augmentation.augment import Augment
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.label_sets import set_numbers
from vitreous.data.pixels.store import Store
from vitreous.data.sampling import check_weights, draw_order, earlier_showings
from vitreous.data.workers import compute_chunks
from vitreous.errors import ConfigError, DataError
from vitreous.seeding import derive
from vitreous.tensors import Images, Pixels, Probabilities, Targets, Tokens
from vitreous.transfer import to_device
from vitreous.wording import plural

BYTES_AT_ONCE = 4 * 2**20
"""Bytes of float images that a CPU augments at a time, so that intermediate results stay in its cache."""

NUM_AHEAD = 2
"""Number of batches that a `Prefetcher` prepares."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The images, labels and positions of one batch.

    Attributes:
        images: Normalized images, `[batch, channels, height, width]`; or what the first layers of the model compute
            from them: features, `[batch, width]`, or tokens, `[batch, tokens, width]`.
        labels: Class indices, `[batch]`; or 1 for each label of an image and 0 elsewhere, `[batch, classes]`; or
            probabilities, `[batch, classes]`.
        indices: Positions of the images in the store, `[batch]`.
    """

    images: Images | Tokens | Float[Tensor, "batch width"]
    labels: Targets
    indices: NDArray[np.int64]


class TrainLoader:
    """Random access to training batches: the batch of a step does not depend on which steps were taken before.

    Each epoch shows every image once, in a new random order. With `weights`, some images are shown several times and
    others not at all (see `draw_order`). An epoch is cut into the smallest possible number of batches of at most
    `batch_size`, of nearly equal size: no image is dropped, and a set smaller than a batch gives one small batch.

    With `repeats`, an image appears that many times in its batch, and each copy is augmented differently. An epoch
    still shows `len(store)` images, copies included. Every image comes up once per *round*, which is `repeats` epochs.

    `weights` says how often each image is shown relative to the others, `[len(store)]`; None: equally often. With
    `share` = (rank, world size), each batch has only the part of this process. The parts are nearly equal, and those of
    all processes are the whole batch; `least_images` is the smallest number of images that any process gets in any
    batch. With `repeats`, `steps_per_epoch` may be fractional.

    Raises:
        DataError: The store is empty, or `weights` does not fit it.
        ConfigError: A batch has fewer images than there are processes.

    Source: Repeated augmentation: Hoffer et al. 2019 (1901.09335), section 2, and DeiT (2012.12877). They show a random
    third of the images in each epoch and drop the incomplete batch; our rounds leave no image out.
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
        if len(store) == 0:
            raise DataError("data: 0 training images; add at least one")
        if weights is not None:
            check_weights(weights, len(store))
        self._store = store
        self._preprocess = preprocess
        self._augment = augment
        self._seed = seed
        self._weights = weights
        self._repeats = repeats
        self._share = share
        self._strata = set_numbers(store.labels.cpu().numpy())
        self._targets: Tensor | None = None
        self._steps_per_round = math.ceil(len(store) / (batch_size // repeats))
        smallest_batch = len(store) // self._steps_per_round
        self.least_images = smallest_batch // share[1] * repeats
        if self.least_images == 0:
            raise ConfigError(
                f"data.batch_size={batch_size}: {plural(smallest_batch, 'image')} per batch cannot be shared among "
                f"{share[1]} processes; use at most {plural(smallest_batch, 'process', 'processes')}"
            )
        self.steps_per_epoch: float = self._steps_per_round if repeats == 1 else self._steps_per_round / repeats
        self._order = (-1, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    def replace_labels(self, targets: Probabilities) -> None:
        """Give each image the row of `targets` at its position in the store, instead of its label."""
        self._targets = targets.to(self._store.device)

    def batch(self, step: int, attempt: int = 0) -> Batch:
        """Return the batch of a step, counted from 0 over all epochs.

        Its epoch is `step / steps_per_epoch`, rounded down. Attempts 1, 2, … repeat a failed step with the same images,
        augmented differently. The batch is on the store's device.
        """
        round_number, positions = self._locate(step)
        order, earlier = self._order_of(round_number)
        pixels = self._store.take(order[positions])
        indices = order[positions].repeat(self._repeats)
        # Augmentation is a function of (seed, number): each showing of an image in a round needs its own number.
        copies = (earlier[positions, None] * self._repeats + np.arange(self._repeats)).reshape(-1)
        numbers = indices + len(self._store) * copies
        seed = derive(self._seed, "augment", round_number, *([attempt] if attempt else []))
        if self._repeats > 1:
            pixels = pixels.repeat_interleave(self._repeats, dim=0)
        return Batch(self._augmented(pixels, numbers, seed), self._labels(indices), indices)

    def features_batch(self, features: Float[Tensor, "images ..."], step: int) -> Batch:
        """Return the batch of a step with the images' rows of `features` instead of the images."""
        round_number, positions = self._locate(step)
        indices = self._order_of(round_number)[0][positions].repeat(self._repeats)
        rows = features[to_device(torch.from_numpy(indices), features.device)]
        return Batch(rows, self._labels(indices), indices)

    def each_once(self, batch_size: int) -> "EvalLoader":
        """Return a loader of all images in the order of the store, without augmentation."""
        return EvalLoader(self._store, self._preprocess, batch_size)

    def shuffled_once(self, batch_size: int, most: int) -> "EvalLoader":
        """Return a loader of at most this many images in random order, without augmentation."""
        chosen = np.random.default_rng(derive(self._seed, "once")).permutation(len(self._store))[:most]
        return EvalLoader(self._store, self._preprocess, batch_size, chosen=chosen)

    def _labels(self, indices: NDArray[np.int64]) -> Targets:
        if self._targets is None:
            return _labels(self._store, indices)
        return self._targets[to_device(torch.from_numpy(indices), self._targets.device)]

    def _augmented(self, pixels: Pixels, numbers: NDArray[np.int64], seed: int) -> Images:
        """Augment and normalize; on a CPU in small chunks, whose intermediate results fit into its cache."""
        if pixels.device.type != "cpu":
            return self._preprocess.normalize(self._augment(pixels, numbers, seed))
        images = torch.empty(pixels.shape, dtype=torch.float32)

        def augment(chunk: tuple[Tensor, Tensor, NDArray[np.int64]]) -> None:
            result, chunk_pixels, chunk_numbers = chunk
            result.copy_(self._preprocess.normalize(self._augment(chunk_pixels, chunk_numbers, seed)))

        num = min(len(images), math.ceil(images.nbytes / BYTES_AT_ONCE))
        chunks = zip(images.tensor_split(num), pixels.tensor_split(num), np.array_split(numbers, num), strict=True)
        compute_chunks(augment, list(chunks))
        return images

    def _locate(self, step: int) -> tuple[int, slice]:
        """Return the round of a step, and which positions of the round's order this process takes."""
        round_number, step_of_round = divmod(step, self._steps_per_round)
        start, stop = _nth_part(0, len(self._store), step_of_round, self._steps_per_round)
        return round_number, slice(*_nth_part(start, stop, *self._share))

    def _order_of(self, round_number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the order of a round, and how often each entry occurs earlier in it."""
        # One tuple, replaced as a whole, because a prefetching thread may call this at the same time.
        known, order, earlier = self._order
        if known != round_number:
            order = draw_order(derive(self._seed, "order", round_number), self._strata, self._weights)
            earlier = np.zeros_like(order) if self._weights is None else earlier_showings(order)
            self._order = (round_number, order, earlier)
        return order, earlier


class EvalLoader:
    """All images in order, or the chosen ones, without augmentation; `len` is the number of batches, perhaps 0.

    The last batch may have fewer than `batch_size` images. With `share` = (rank, world size), each batch has only the
    part of this process, which may be empty.
    """

    def __init__(
        self,
        store: Store,
        preprocess: Preprocess,
        batch_size: int,
        share: tuple[int, int] = (0, 1),
        chosen: NDArray[np.int64] | None = None,
    ) -> None:
        self._chosen = np.arange(len(store)) if chosen is None else chosen
        self._share = share
        self._store = store
        self._preprocess = preprocess
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._chosen) / self._batch_size)

    @property
    def labels(self) -> Targets:
        """Labels of all images, of every process."""
        return _labels(self._store, self._chosen)

    def positions(self) -> Iterator[NDArray[np.int64]]:
        """Yield, for each batch, the positions of its images in the store."""
        for start in range(0, len(self._chosen), self._batch_size):
            stop = min(start + self._batch_size, len(self._chosen))
            yield self._chosen[slice(*_nth_part(start, stop, *self._share))]

    def __iter__(self) -> Iterator[Batch]:
        for indices in self.positions():
            yield Batch(self._preprocess.normalize(self._store.take(indices)), _labels(self._store, indices), indices)


class Prefetcher:
    """A TrainLoader that prepares the next batches in a thread while the model trains on the current one.

    It helps with a LazyStore. Use it in a `with` block, or call `close`, to end the thread.
    """

    def __init__(self, loader: TrainLoader) -> None:
        self._loader = loader
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="vitreous-prefetch")
        self._prepared: dict[int, Future[Batch]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Number of batches in an epoch."""
        return self._loader.steps_per_epoch

    def batch(self, step: int, attempt: int = 0) -> Batch:
        """Return the loader's batch; an error met while preparing it is raised here."""
        if attempt:
            return self._loader.batch(step, attempt)
        window = range(step, step + NUM_AHEAD + 1)
        for other in [key for key in self._prepared if key not in window]:
            self._prepared.pop(other).cancel()
        for wanted in window:
            if wanted not in self._prepared:
                self._prepared[wanted] = self._pool.submit(self._loader.batch, wanted)
        return self._prepared.pop(step).result()

    def close(self) -> None:
        """End the thread and drop the prepared batches."""
        self._prepared.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _nth_part(start: int, stop: int, index: int, count: int) -> tuple[int, int]:
    """Cut [start, stop) into `count` nearly equal parts, and return where one of them starts and stops."""
    length = stop - start
    return start + length * index // count, start + length * (index + 1) // count


def _labels(store: Store, indices: NDArray[np.int64]) -> Targets:
    labels = store.labels[to_device(torch.from_numpy(indices), store.device)]
    return labels.float() if labels.dtype == torch.bool else labels
