"""Labels, weights -> the order in which images are shown: each once, or more often where its weight says so."""

import numpy as np
from numpy.typing import NDArray

from vitreous.errors import DataError
from vitreous.seeding import derive, permutation, uniform


def balanced_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights that show all classes equally often.

    Args:
        labels: Class indices, `[n]`, at least one.

    Returns:
        One over the size of each image's class, `[n]`.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def draw_order(seed: int, labels: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """As many places in a row as there are images, and who stands where.

    Without weights it is each image once. With weights, systematic resampling (Kitagawa 1996, appendix) in a random
    order within each class: an image whose weight asks for 2.3 places gets 2 or 3, and no image whose weight is at
    least the mean is left out. A class gets its expected number of places, rounded up or down. Each place alone falls
    to an image in proportion to its weight.

    Args:
        seed: From `derive`, one for each round.
        labels: Class indices, `[n]`.
        weights: At least 0 each, above 0 in all, `[n]`; None: each image once.

    Returns:
        Positions in 0 … n − 1, `[n]`.
    """
    num = len(labels)
    order = permutation(seed, num)
    if weights is None:
        return order
    order = order[np.argsort(labels[order], kind="stable")]
    ends = np.cumsum(weights[order] / weights.sum()) * num
    ends[-1] = num  # but for rounding
    offset = float(uniform(derive(seed, "offset"), np.zeros(1, dtype=np.int64), 1)[0, 0])
    taken: NDArray[np.int64] = np.floor(ends + offset).astype(np.int64)
    places = taken - np.r_[0, taken[:-1]]
    return np.repeat(order, places)[permutation(derive(seed, "shuffle"), num)]


def earlier_showings(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each entry stood in the order before, `[n]`: 0 for a first time, 1 for a second …"""
    by_image = np.argsort(order, kind="stable")
    same = order[by_image]
    first = np.flatnonzero(np.r_[True, same[1:] != same[:-1]])
    runs = np.diff(np.r_[first, len(order)])
    earlier = np.empty(len(order), dtype=np.int64)
    earlier[by_image] = np.arange(len(order)) - np.repeat(first, runs)
    return earlier


def check_weights(weights: NDArray[np.float64], num_images: int) -> None:
    """Raise DataError unless there is one weight for each image, none negative or infinite, and one above 0."""
    if weights.shape != (num_images,):
        raise DataError(f"weights={len(weights)}: there are {num_images} images; give one weight for each")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise DataError(f"weights[{wrong[0]}]={weights[wrong[0]]}: must be finite and at least 0; correct it")
    if not weights.any():
        raise DataError(f"weights=0: all {num_images} images have this weight; give one above 0 to some")
