"""Thumbnails -> groups of near-duplicates, also if one of them is cropped.

An image is compared with cropped versions of the others: the crops are computed from thumbnails. First, the few images
that resemble it most at low frequencies, which hardly depend on the exact crop, are found among all. Then all crops of
`_FINE` are compared with these, by all frequencies. Two images are near-duplicates if their similarity is at least
`LEAST` and, for both of them, the next image is three times further away, as in `near_duplicates.py`.

The features of a model do not help: they say what an image shows, not which image it is.
`benchmarks/doctor_pretrained.py` measures both; README.md has the results.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.doctor.near_duplicates import (
    NUM_FREQUENCIES,
    SIDE_PX,
    ColorThumbnails,
    GrayThumbnails,
    are_mutual,
    colors_agree,
    describe,
    find_near_duplicates,
    gap_limits,
)
from vitreous.data.survey.splits import connected
from vitreous.data.workers import Progress

MOST_IMAGES = 10_000
"""Larger sets are not searched for crops, which would take minutes."""

_COARSE = ((0.9, 0.8), 3)
_FINE = ((0.95, 0.9, 0.85, 0.8), 5)
"""Sides of the crops as a share of the image, and number of places along each axis."""
_NUM_CANDIDATES = 4
_NUM_LOW = 6
"""Low frequencies along each axis by which candidates are chosen."""
_ROWS = 1_024

Resampling = tuple[Tensor, Tensor]
"""Matrices that resample the rows and the columns of a thumbnail."""


def find_cropped_duplicates(
    gray: GrayThumbnails, color: ColorThumbnails, progress: Progress | None = None
) -> NDArray[np.int64]:
    """Group near-duplicates like `find_near_duplicates`, also those of which one shows 80% or more of the other's side.

    Return a group number per image, `[n]`; above `MOST_IMAGES` images, those of `find_near_duplicates`.
    """
    uncropped, count = find_near_duplicates(gray, color, progress), len(gray)
    if not 3 <= count <= MOST_IMAGES:
        return uncropped
    neighbor = _candidates(gray)
    similarity, order = _refined(gray, neighbor).sort(dim=1, descending=True)
    neighbor = neighbor.gather(1, order)
    accepted = similarity >= gap_limits(similarity)[:, None]
    first, second = torch.arange(count)[:, None].expand_as(neighbor)[accepted].numpy(), neighbor[accepted].numpy()
    linked = colors_agree(color, first, second) & are_mutual(first, second, count)
    first_of_group = np.unique(uncropped, return_index=True)[1][uncropped]
    return connected(
        np.concatenate([first[linked], np.arange(count)]), np.concatenate([second[linked], first_of_group]), count
    )


def _candidates(gray: GrayThumbnails) -> Tensor:
    """Return the images that are most similar to each image or to a crop of it, by low frequencies, `[n, few]`."""
    plain, count = _low(describe(gray)), len(gray)
    crops = [_low(describe(gray, *crop)) for crop in _crops(*_COARSE)]
    found = []
    for start in range(0, count, _ROWS):
        rows = slice(start, start + _ROWS)
        best = plain[rows] @ plain.T
        for cropped in crops:
            best = torch.maximum(best, torch.maximum(cropped[rows] @ plain.T, plain[rows] @ cropped.T))
        best[torch.arange(len(best)), torch.arange(start, start + len(best))] = -2.0
        found.append(best.topk(min(_NUM_CANDIDATES, count - 1), dim=1).indices)
    return torch.cat(found)


def _refined(gray: GrayThumbnails, neighbor: Tensor) -> Tensor:
    """Return the highest similarity of each image and its neighbors over all crops of either, like `neighbor`."""
    plain = describe(gray)
    best = (plain[:, None] * plain[neighbor]).sum(dim=2)
    for crop in _crops(*_FINE):
        cropped = describe(gray, *crop)
        for ours, theirs in ((cropped, plain), (plain, cropped)):
            best = torch.maximum(best, torch.einsum("nd,nkd->nk", ours, theirs[neighbor]))
    return best


def _low(vectors: Tensor) -> Tensor:
    """Return the low frequencies of what `describe` returns, as unit vectors."""
    spectrum = torch.nn.functional.pad(vectors, (1, 0)).view(-1, NUM_FREQUENCIES, NUM_FREQUENCIES)
    return torch.nn.functional.normalize(spectrum[:, :_NUM_LOW, :_NUM_LOW].flatten(1), dim=1)


def _crops(sides: Sequence[float], num_places: int) -> Iterator[Resampling]:
    for side in sides:
        starts = np.linspace(0, 1 - side, num_places).tolist()
        yield from product((_resampling(start, side) for start in starts), repeat=2)


def _resampling(start: float, side: float) -> Tensor:
    """Return the matrix that enlarges a part of an axis to all of it, by linear interpolation."""
    position = (SIDE_PX * start + side * (torch.arange(SIDE_PX) + 0.5) - 0.5).clamp(0, SIDE_PX - 1)
    return (1 - (position[:, None] - torch.arange(SIDE_PX)).abs()).clamp(min=0)
