"""Labeled images, how many -> a sample that is drawn by a seed, in which each class has its share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, set_numbers
from vitreous.data.pixels.store import Store
from vitreous.data.workers import Progress
from vitreous.errors import DataError
from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive, permutation
from vitreous.tensors import Images, Labels, Pixels, Targets
from vitreous.training.folder.records import Listener, ignore
from vitreous.use.evaluate.labeled_images import LabeledImages
from vitreous.use.explain.methods import Method
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import TOKENS_AT_ONCE
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural

Positions = NDArray[np.int64]
"""Positions of images in a sample."""
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Sample:
    """Some labeled images, and the predictor whose model is explained on them.

    `name` is that of the data and of the split, and `total` the number of images of which these were drawn. Labels are
    class numbers of the model, or a truth value per image and class. The store has the pixels, on the device of the
    model.
    """

    name: str
    total: int
    paths: tuple[str, ...]
    labels: LabelArray
    store: Store
    predictor: Predictor

    @classmethod
    def draw(
        cls,
        images: LabeledImages,
        predictor: Predictor,
        most: int,
        *,
        seed: int = 0,
        fewest: int = 1,
        listener: Listener = ignore,
    ) -> Self:
        """Draw images without replacement and decode them; the same images for the same seed.

        There are at least `fewest` and at most `most` of them.

        Raises:
            DataError: There are fewer images, or fewer of those that are drawn can be decoded.
        """
        if len(images.indices) < fewest:
            raise DataError(
                f"{images.name}: has {plural(len(images.indices), 'image')}, and this needs {fewest} or more; give a "
                "folder or table with more labeled images"
            )
        drawn = images.indices[stratified(set_numbers(images.source.labels[images.indices]), most, seed)]
        store, labels = images.decode(predictor, drawn, listener)
        if len(store) < fewest:
            raise DataError(
                f"{images.name}: {len(store)} of {plural(len(drawn), 'image')} can be decoded, and this needs "
                f"{fewest} or more; check them with `vitreous inspect`"
            )
        known = (labels.bool() if labels.is_floating_point() else labels).numpy()
        paths = tuple(images.source.describe(int(index)) for index in store.source_indices)
        store = store.to(next(predictor.model.parameters()).device)
        return cls(images.name, len(images.indices), paths, known, store, predictor)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def model(self) -> VisionTransformer:
        """The model of the predictor."""
        return self.predictor.model

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of all classes that the model knows."""
        return self.predictor.classes

    @property
    def positions(self) -> Positions:
        """The positions of all images."""
        return np.arange(len(self))

    def pixels(self, positions: Positions) -> Pixels:
        """Return images as they are before normalization."""
        return self.store.take(positions)

    def images(self, positions: Positions) -> Images:
        """Return normalized images."""
        return self.predictor.preprocess.normalize(self.pixels(positions))

    def targets(self, positions: Positions) -> Targets:
        """Return the labels of images, on their device."""
        labels = torch.from_numpy(self.labels[positions]).to(self.store.device)
        return labels.float() if labels.dtype == torch.bool else labels

    def predicted(self) -> Labels:
        """Return the predicted class of each image, on the CPU; of several labels, the most probable one."""
        found = [self.predictor.logits(self.pixels(some)) for some in batches(self.model, self.positions)]
        return torch.cat(found).argmax(dim=1)

    def in_batches(self, compute: Callable[[Images], Found], show: Progress) -> list[Found]:
        """Return what a function computes for the normalized images of each batch."""
        found = []
        for some in batches(self.model, self.positions):
            found.append(compute(self.images(some)))
            show(int(some[-1]) + 1, len(self))
        return found

    def pictures(self, positions: Positions) -> UInt8[np.ndarray, "images height width 3"]:
        """Return images as the model gets them, in color; of other than 3 channels, the first 3 or the first one."""
        return as_colors(self.pixels(positions).cpu().numpy())

    def explained(
        self, method: Method, classes: NDArray[np.int64], positions: Positions, show: Progress
    ) -> Float[np.ndarray, "images rows columns"]:
        """Explain the score of a class, one for each position; positions may repeat."""
        found = [np.zeros((0, *self.model.config.grid_size), np.float32)]
        for some in batches(self.model, np.arange(len(positions))):
            target = Target(torch.from_numpy(classes[some]))
            found.append(method(self.model, self.images(positions[some]), target).values.cpu().numpy())
            show(int(some[-1]) + 1, len(positions))
        return np.concatenate(found)


def batches(model: VisionTransformer, positions: Positions) -> Iterator[Positions]:
    """Yield positions in batches whose intermediate tensors fit into memory."""
    size = max(1, TOKENS_AT_ONCE // model.config.num_tokens)
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def stratified(classes: NDArray[np.int64], count: int, seed: int) -> Positions:
    """Return the positions of `count` samples, or all, ascending, in which each class has its share, up to rounding."""
    order = permutation(derive(seed, "sample"), len(classes))
    _, numbers, sizes = np.unique(classes[order], return_inverse=True, return_counts=True)
    offsets = np.random.default_rng(derive(seed, "offsets")).random(len(sizes))
    within = np.zeros(len(order))
    for number, size in enumerate(sizes):
        within[numbers == number] = (np.arange(size) + offsets[number]) / size
    return np.sort(order[np.argsort(within, kind="stable")[:count]])


def as_colors(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `[n, channels, height, width]` as `[n, height, width, 3]`: the first 3 channels, or the first as gray."""
    shown = values[:, :3] if values.shape[1] >= 3 else values[:, :1].repeat(3, axis=1)
    return np.moveaxis(shown, 1, 3)
