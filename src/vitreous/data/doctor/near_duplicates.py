"""Thumbnails -> groups of near-duplicates: images that were re-encoded, resized or brightened.

Mirrored or cropped versions of an image are not near-duplicates.

An image is described by the low frequencies of its gray thumbnail: a cosine transform, as in perceptual hashing, with
each coefficient multiplied by its frequency because the spectrum of photos falls with it. Perceptual hashes keep only
the signs of the coefficients. Here the values stay, so similarity is a cosine, and one matrix product compares
thousands of images.

No single threshold separates near-duplicates from images that merely look alike: two different MNIST digits reach
0.986, while a CIFAR image and its half-size version reach only 0.93. What near-duplicates share is a *gap*: the next
image is much further away. Two images are therefore near-duplicates if

- their similarity is at least 0.99, or
- it is at least 0.90 and, for both of them, the next image after their near-duplicates is three times further away.

The table shows, for 200 modified images of each kind, how many were found (`benchmarks/doctor.py`). The last column is
the number of images reported as near-duplicates in the unmodified set:

    set            JPEG 75  JPEG 30  half size  ×1.5   ×1.4 brighter  mirrored   unmodified set
    digits, 8 px      100%      15%         0%   56%            56%        0%    4 of 1,797
    sign-digits       100%     100%       100%  100%            96%        0%    0 of 2,062
    clothing-96px     100%     100%       100%  100%            98%        2%    2 of 3,781 (a true pair)

Images cropped by 5% are not found here, but by `cropped.py`. A mirrored image is found only if the image is symmetric.
Product photos on a uniform background can be reported by mistake: 49 of the first 12,000 images of Fashion-MNIST.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.survey.splits import connected
from vitreous.data.workers import Progress
from vitreous.seeding import derive, permutation

SIDE_PX = 32
"""Side of a gray thumbnail; the side of a color thumbnail is a quarter of it."""

CERTAIN = 0.99
"""Similarity from which two images are near-duplicates without a gap."""
LEAST = 0.90
"""Similarity below which two images are never near-duplicates."""
_GAP = 3.0
_NUM_NEIGHBORS = 16
NUM_FREQUENCIES = 16

_CELL = 2_048
"""Up to twice this many images are compared pairwise; larger sets are first divided into cells of about this size."""
_CELLS_PER_IMAGE = 3
_ROWS = 1_024
_CHUNK = 8_192

# One shape in two colors is not a near-duplicate, but a gray version of a color image is: colors are compared only if
# both images have some, i.e. deviate from gray by this many levels.
_LEAST_COLOR = 6.0
_COLORS_AGREE = 0.8

GrayThumbnails = NDArray[np.uint8]
"""`[n, SIDE_PX, SIDE_PX]`."""
ColorThumbnails = NDArray[np.uint8]
"""`[n, SIDE_PX // 4, SIDE_PX // 4, 3]`."""


def describe(gray: GrayThumbnails, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Return the vectors that `find_near_duplicates` compares, float32, `[n, 255]`.

    They have length 1 and do not depend on brightness and contrast; those of a constant image are zeros. `rows` and
    `columns` are matrices, `[SIDE_PX, SIDE_PX]`, by which each column and then each row is resampled first, to crop the
    images.
    """
    position = torch.arange(SIDE_PX, dtype=torch.float32) + 0.5
    frequency = torch.arange(NUM_FREQUENCIES, dtype=torch.float32)
    waves = torch.cos(torch.pi / SIDE_PX * frequency[:, None] * position)
    down, right = waves if rows is None else waves @ rows, waves if columns is None else waves @ columns
    weight = torch.hypot(frequency[:, None], frequency)
    chunks = []
    for start in range(0, len(gray), _CHUNK):
        pixels = torch.from_numpy(gray[start : start + _CHUNK]).float()
        spectrum = (down @ (pixels - pixels.mean(dim=(1, 2), keepdim=True)) @ right.T) * weight
        vectors = spectrum.flatten(1)[:, 1:]
        length = vectors.norm(dim=1, keepdim=True)
        chunks.append(torch.where(length > 1e-2 * SIDE_PX, vectors / length.clamp(min=1e-6), 0.0))
    return torch.cat(chunks) if chunks else torch.empty(0, NUM_FREQUENCIES**2 - 1)


def find_near_duplicates(
    gray: GrayThumbnails, color: ColorThumbnails, progress: Progress | None = None
) -> NDArray[np.int64]:
    """Group near-duplicates, by the rules at the top of this file; the thumbnails are of files with different contents.

    Return a group number per image, `[n]`. Images with the same number are near-duplicates of each other. A constant
    image is in its own group.
    """
    count = len(gray)
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    vectors = describe(gray)
    not_constant = torch.nonzero(vectors.any(dim=1)).flatten()
    similarity, neighbor = nearest_images(vectors, cells_of(_coarse(gray), not_constant), progress)
    accepted = similarity >= gap_limits(similarity).clamp(max=CERTAIN)[:, None]
    first = torch.arange(count)[:, None].expand_as(neighbor)[accepted].numpy()
    second, certain = neighbor[accepted].numpy(), (similarity[accepted] >= CERTAIN).numpy()
    linked = colors_agree(color, first, second) & (certain | are_mutual(first, second, count))
    return connected(first[linked], second[linked], count)


def are_mutual(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return a mask of the pairs of which both images have the gap; `count` is the number of images.

    Without this rule, a crowd of similar images would join the group of one outlier.
    """
    return np.isin(first * count + second, second * count + first)


def gap_limits(similarity: Tensor) -> Tensor:
    """Return the lowest similarity at which a neighbor is a near-duplicate, for each image; infinity without a gap.

    Similarities are those of the nearest neighbors, largest first, `[n, neighbors]`.
    """
    distance = (1.0 - similarity).clamp(min=1e-4)
    has_gap = (distance[:, 1:] >= _GAP * distance[:, :-1]) & (similarity[:, :-1] >= LEAST)
    last = torch.where(has_gap, torch.arange(has_gap.shape[1]), -1).amax(dim=1)
    at_gap = similarity.gather(1, last.clamp(min=0)[:, None])[:, 0]
    return torch.where(last >= 0, at_gap, torch.inf)


def nearest_images(vectors: Tensor, cells: Iterator[Tensor], progress: Progress | None) -> tuple[Tensor, Tensor]:
    """Return similarity and index of each image's nearest neighbors among the images in its cells, nearest first."""
    similarity = torch.full((len(vectors), _NUM_NEIGHBORS), -1.0)
    neighbor = torch.zeros((len(vectors), _NUM_NEIGHBORS), dtype=torch.int64)
    compared = torch.zeros(len(vectors), dtype=torch.bool)
    for members in cells:
        compared[members] = True
        if progress is not None:
            progress(int(compared.sum()), len(vectors))
        inside = vectors[members]
        for start in range(0, len(members), _ROWS):
            rows = members[start : start + _ROWS]
            product = inside[start : start + _ROWS] @ inside.T
            product[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = -1.0
            found = product.topk(min(_NUM_NEIGHBORS, len(members)), dim=1)
            similarity[rows], neighbor[rows] = _merged(
                (similarity[rows], found.values), (neighbor[rows], members[found.indices])
            )
    return similarity, neighbor


def _merged(similarity: tuple[Tensor, Tensor], neighbor: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Merge two lists of neighbors per image; two cells may contain the same neighbor, which then counts once."""
    all_similarity, all_neighbor = torch.cat(similarity, dim=1), torch.cat(neighbor, dim=1)
    repeated = ((all_neighbor[:, :, None] == neighbor[0][:, None]) & (similarity[0] > -1.0)[:, None]).any(dim=2)
    repeated[:, : similarity[0].shape[1]] = False
    best = all_similarity.masked_fill(repeated, -1.0).topk(_NUM_NEIGHBORS, dim=1)
    return best.values, all_neighbor.gather(1, best.indices)


def _coarse(gray: GrayThumbnails) -> Tensor:
    """Return 8x8 averages as unit vectors, `[n, 64]`; they choose the cells because re-encoding hardly changes them."""
    side = SIDE_PX // 8
    pooled = gray.reshape(-1, 8, side, 8, side).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 64)
    pooled -= pooled.mean(axis=1, keepdims=True)
    return torch.from_numpy(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6))


def cells_of(coarse: Tensor, members: Tensor) -> Iterator[Tensor]:
    """Yield sets of image indices; each image is in the cells of the three centers that are most similar to it."""
    if len(members) <= 2 * _CELL:
        yield members
        return
    num_centers = max(2 * _CELLS_PER_IMAGE, _CELLS_PER_IMAGE * len(members) // _CELL)
    centers = coarse[members[permutation(derive(0, "cells"), len(members))[:num_centers]]]
    joined = torch.cat([(chunk @ centers.T).topk(_CELLS_PER_IMAGE, dim=1).indices
                        for chunk in coarse[members].split(_CHUNK)])  # fmt: skip
    order = joined.flatten().argsort(stable=True)
    sizes = torch.bincount(joined.flatten(), minlength=num_centers).tolist()
    for cell in (order // _CELLS_PER_IMAGE).split(sizes):
        if 10 * len(cell) > 7 * len(members):  # dividing hardly helped: compare these images pairwise
            yield members[cell]
        else:
            yield from cells_of(coarse, members[cell])


def colors_agree(color: ColorThumbnails, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the pairs in which one image has no color or both have the same colors."""
    agree = np.ones(len(first), dtype=bool)
    for start in range(0, len(first), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        one, other = (_chroma(color[which[chunk]]) for which in (first, second))
        strength = np.sqrt((one**2).mean(axis=1)), np.sqrt((other**2).mean(axis=1))
        cosine = (one * other).mean(axis=1) / np.maximum(strength[0] * strength[1], 1e-6)
        agree[chunk] = (np.minimum(*strength) < _LEAST_COLOR) | (cosine >= _COLORS_AGREE)
    return agree


def _chroma(color: ColorThumbnails) -> NDArray[np.float32]:
    """Return how far each channel deviates from gray, `[n, pixels * 3]`."""
    tint = color.astype(np.float32)
    tint -= tint.mean(axis=3, keepdims=True)
    return tint.reshape(len(tint), -1)
