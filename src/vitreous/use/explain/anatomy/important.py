"""Relevance of patches, labels -> for each class, the patches that matter most over all of its images."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from vitreous.data.label_sets import memberships
from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive, permutation
from vitreous.training.folder.records import Listener
from vitreous.use.explain.anatomy.sample import Sample
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.target import Target


@dataclass(frozen=True)
class ImportantPatch:
    """The most relevant patch of an image.

    Attributes:
        image: Position of the image in the sample.
        row: Row of the patch.
        column: Column of the patch.
        share: Its share of the relevance of the image, in [0, 1].
    """

    image: int
    row: int
    column: int
    share: float


def important_patches(
    values: Float[np.ndarray, "images rows columns"], images: NDArray[np.int64], most: int
) -> list[ImportantPatch]:
    """Return the most relevant patch of each image, in order of its share of the relevance, at most `most`.

    Relevance of different images cannot be compared, so its share in the image is. Values below 0 do not count.

    Args:
        values: Relevance of the patches of some images.
        images: The positions of these images in the sample.
        most: Largest number of patches.
    """
    positive = values.clip(min=0).reshape(len(values), -1).astype(np.float64)
    total = positive.sum(axis=1, keepdims=True)
    shares = np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)
    best = shares.argmax(axis=1)
    order = np.argsort(-shares.max(axis=1), kind="stable")[:most]
    rows, columns = np.unravel_index(best, values.shape[1:])
    return [
        ImportantPatch(int(images[i]), int(rows[i]), int(columns[i]), float(shares[i, best[i]])) for i in order.tolist()
    ]


def patches_by_class(
    model: VisionTransformer, sample: Sample, *, most: int, most_images: int, listener: Listener
) -> dict[int, list[ImportantPatch]]:
    """Explain the score of each class on its images by the default method, and return its most relevant patches.

    Args:
        model: In evaluation mode.
        sample: The images; one with several labels is explained for each of them.
        most: Largest number of patches of a class.
        most_images: Largest number of explanations; they are drawn by a seed if there are more.
        listener: Receives the progress.

    Returns:
        The patches by class number; classes without images are missing.
    """
    images, classes = memberships(sample.labels)
    drawn = np.sort(permutation(derive(0, "important"), len(images))[:most_images])
    images, classes = images[drawn], classes[drawn]
    size, found = len(next(sample.batches(model))), []
    for start in range(0, len(images), size):
        some = slice(start, start + size)
        target = Target(torch.from_numpy(classes[some]))
        found.append(METHODS[DEFAULT](model, sample.images(images[some]), target).values.cpu().numpy())
        done = min(start + size, len(images))
        listener("reading", {"what": "explaining classes", "done": done, "total": len(images)})
    values = np.concatenate(found) if found else np.zeros((0, 1, 1))
    return {
        int(number): important_patches(values[classes == number], images[classes == number], most)
        for number in np.unique(classes)
    }
