"""Labels, weights -> the order in which images are shown in one epoch: each once, or in proportion to its weight."""

import numpy as np
from numpy.typing import NDArray

from vitreous.errors import DataError
from vitreous.seeding import derive, permutation, uniform


def balanced_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return weights that show all classes equally often: one over the size of each image's class, `[n]`."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def draw_order(seed: int, labels: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Draw the order in which images are shown in one epoch: positions in [0, n), `[n]`.

    Without weights, each image is shown once. With weights, images are drawn by systematic resampling (Kitagawa 1996,
    appendix), in a random order within each class. An image whose expected count is 2.3 is shown 2 or 3 times, and an
    image whose weight is at least the mean is never left out. The count of a class is its expected count, rounded up or
    down. Each single position of the order shows an image with a probability proportional to its weight. Each epoch
    needs another seed, from `derive`.
    """
    num = len(labels)
    order = permutation(seed, num)
    if weights is None:
        return order
    order = order[np.argsort(labels[order], kind="stable")]
    ends = np.cumsum(weights[order] / weights.sum()) * num
    ends[-1] = num  # rounding errors could leave it slightly off
    offset = float(uniform(derive(seed, "offset"), np.zeros(1, dtype=np.int64), 1)[0, 0])
    shown_so_far: NDArray[np.int64] = np.floor(ends + offset).astype(np.int64)
    counts = shown_so_far - np.r_[0, shown_so_far[:-1]]
    return np.repeat(order, counts)[permutation(derive(seed, "shuffle"), num)]


def earlier_showings(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count how often each entry occurs earlier in the order, `[n]`: 0 for its first showing, 1 for its second."""
    by_image = np.argsort(order, kind="stable")
    same = order[by_image]
    first = np.flatnonzero(np.r_[True, same[1:] != same[:-1]])
    runs = np.diff(np.r_[first, len(order)])
    earlier = np.empty(len(order), dtype=np.int64)
    earlier[by_image] = np.arange(len(order)) - np.repeat(first, runs)
    return earlier


def check_weights(weights: NDArray[np.float64], num_images: int) -> None:
    """Raise DataError unless there is one finite weight of at least 0 per image, and at least one above 0."""
    if weights.shape != (num_images,):
        raise DataError(f"weights={len(weights)}: there are {num_images} images; give one weight per image")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise DataError(f"weights[{wrong[0]}]={weights[wrong[0]]}: must be finite and at least 0; correct it")
    if not weights.any():
        raise DataError(f"weights=0: all {num_images} images have weight 0; set at least one weight above 0")
