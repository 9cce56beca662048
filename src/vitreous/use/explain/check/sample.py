"""Run, optionally other data -> some labeled images on which methods are compared."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.label_sets import set_numbers
from vitreous.data.pixels.store import Store, load_store
from vitreous.data.sources import Source
from vitreous.errors import ConfigError, DataError
from vitreous.seeding import derive, permutation
from vitreous.training.folder.records import Listener
from vitreous.training.load import progress_to
from vitreous.use.evaluate.labeled_images import LabeledImages, labeled_images
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural

FEWEST_IMAGES = 10
"""Intervals over fewer images mean little."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Images with their classes.

    Attributes:
        name: Name of the data.
        store: The pixels.
        truth: Which classes each image has, `[images, classes]`.
        num_available: Number of images from which these were chosen.
    """

    name: str
    store: Store
    truth: Bool[Tensor, "images classes"]
    num_available: int

    def __len__(self) -> int:
        return len(self.store)


def held_out(
    run: Path, predictor: Predictor, data: str | Source | None, root: str | None, listener: Listener
) -> LabeledImages:
    """Find the images that a run held out, or those of other data.

    Raises:
        DataError: There are too few; or as `labeled_images`.
    """
    found = labeled_images(run, predictor, data, root=root, listener=listener)
    if len(found.indices) < FEWEST_IMAGES:
        raise DataError(
            f"{found.name}: has {plural(len(found.indices), 'image')}, and a check needs at least {FEWEST_IMAGES}; "
            "give a folder or table with more labeled images"
        )
    return found


def check_count(num_images: int | None) -> None:
    """Raise ConfigError for a number of images that is too small to compare methods."""
    if num_images is not None and num_images < FEWEST_IMAGES:
        raise ConfigError(f"images={num_images}: too few to compare methods; use {FEWEST_IMAGES} or more")


def load_sample(images: LabeledImages, predictor: Predictor, num_images: int, seed: int, listener: Listener) -> Sample:
    """Choose images, each class with its share, and decode them.

    Raises:
        DataError: Too few of them can be decoded.
    """
    labels = images.source.labels[images.indices]
    chosen = images.indices[stratified(set_numbers(labels), num_images, seed)]
    progress = progress_to(listener, "decoding")
    store = load_store(images.source, chosen, predictor.preprocess, progress=progress)
    listener("skipped", {"skipped": store.skipped})
    if len(store) < FEWEST_IMAGES:
        raise DataError(
            f"{images.name}: only {len(store)} of {plural(len(chosen), 'image')} can be decoded, and a check needs "
            f"{FEWEST_IMAGES}; find the others with `vitreous inspect`"
        )
    known = store.labels if store.labels.ndim == 2 else torch.eye(len(images.numbers), dtype=torch.bool)[store.labels]
    truth = torch.zeros(len(store), len(predictor.classes), dtype=torch.bool)
    truth[:, images.numbers] = known.bool()
    return Sample(images.name, store, truth, len(images.indices))


def stratified(classes: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of `count` samples, ascending, in which each class has its share, up to rounding.

    Args:
        classes: Class of each sample.
        count: Number of samples to choose; if there are fewer, all are chosen.
        seed: Decides which ones.
    """
    order = permutation(derive(seed, "sample"), len(classes))
    _, numbers, sizes = np.unique(classes[order], return_inverse=True, return_counts=True)
    offsets = np.random.default_rng(derive(seed, "offsets")).random(len(sizes))
    within = np.zeros(len(order))
    for number, size in enumerate(sizes):
        within[numbers == number] = (np.arange(size) + offsets[number]) / size
    return np.sort(order[np.argsort(within, kind="stable")[:count]])
