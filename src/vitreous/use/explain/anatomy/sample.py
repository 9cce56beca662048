"""Run, perhaps other data -> a bounded number of labeled images, drawn by a seed: normalized, or as pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.label_sets import LabelArray
from vitreous.data.pixels.store import Store, load_store
from vitreous.data.sources import Source
from vitreous.errors import DataError
from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive, permutation
from vitreous.tensors import Images, Targets
from vitreous.training.folder.records import Listener
from vitreous.training.load import progress_to
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.predict.predictor import Predictor

_TOKENS_AT_ONCE = 2_048
"""Tokens of a batch that is explained: for ViT-S/16 at 224 px, its intermediate tensors take about 1 GB."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Some labeled images.

    Attributes:
        name: Name of the data and of the split.
        total: Number of images of which these were drawn.
        paths: Name of each image.
        labels: Class numbers of the model, or a truth value per image and class.
    """

    name: str
    total: int
    paths: tuple[str, ...]
    labels: LabelArray
    _store: Store
    _preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, positions: NDArray[np.int64]) -> Images:
        """Return normalized images."""
        return self._preprocess.normalize(self._store.take(positions))

    def targets(self, positions: NDArray[np.int64]) -> Targets:
        """Return the labels of images, on their device."""
        labels = torch.from_numpy(self.labels[positions]).to(self._store.device)
        return labels.float() if labels.dtype == torch.bool else labels

    def pictures(self, positions: NDArray[np.int64]) -> UInt8[np.ndarray, "images height width 3"]:
        """Return images as the model gets them, in color; of other than 3 channels, the first 3 or the first one."""
        return as_colors(self._store.take(positions).cpu().numpy())

    def batches(self, model: VisionTransformer) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of all images in batches whose intermediate tensors fit into memory."""
        size = max(1, _TOKENS_AT_ONCE // model.config.num_tokens)
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))


def draw_sample(
    run: Path,
    predictor: Predictor,
    data: str | Source | None,
    split: str | None,
    most: int,
    listener: Listener,
) -> Sample:
    """Draw images without replacement and decode them; the same images at each call.

    Args:
        run: Run folder or model file.
        predictor: Its model.
        data: Labeled images; None for those of the run.
        split: Split of the data of the run; None for its held-out images.
        most: Largest number of images.
        listener: Receives the progress.

    Raises:
        NotARunError: `data` is None and `run` is a model file.
        DataNotFoundError: The data of the run is not where it was.
        DataError: The data has changed, has other classes, or has no readable image.
    """
    found = labeled_images(run, predictor, data, split=split, listener=listener)
    drawn = np.sort(permutation(derive(0, "anatomy"), len(found.indices))[:most])
    device = next(predictor.model.parameters()).device
    progress = progress_to(listener, "decoding")
    store = load_store(found.source, found.indices[drawn], predictor.preprocess, progress=progress)
    listener("skipped", {"skipped": store.skipped})
    if not len(store):
        raise DataError(f"{found.name}: none of its images can be decoded; check them with `vitreous inspect`")
    labels, numbers = store.labels.cpu().numpy(), found.numbers.numpy()
    if labels.dtype == np.bool_:
        known = np.zeros((len(labels), len(predictor.classes)), dtype=np.bool_)
        known[:, numbers] = labels
    else:
        known = numbers[labels]
    paths = tuple(found.source.describe(int(index)) for index in store.source_indices)
    return Sample(found.name, len(found.indices), paths, known, store.to(device), predictor.preprocess)


def as_colors(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `[n, channels, height, width]` as `[n, height, width, 3]`: the first 3 channels, or the first as gray."""
    shown = values[:, :3] if values.shape[1] >= 3 else values[:, :1].repeat(3, axis=1)
    return np.moveaxis(shown, 1, 3)
