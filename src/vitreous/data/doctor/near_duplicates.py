"""Thumbnails -> which images are copies of each other: re-encoded, resized, brightened, but not mirrored or cropped.

An image is described by the low frequencies of its gray thumbnail (a cosine transform, as perceptual hashes take it),
each weighted by its frequency, for the spectrum of photos falls off with it. Hashes keep the signs alone; here the
numbers stay, so that similarity is a cosine, and a matrix product compares thousands of images at once.

No single threshold tells copies from look-alikes: two different ones of MNIST reach 0.986, a copy of a CIFAR image at
half its size 0.93. What copies share is a *gap*: the next image is much further away. So two images are copies where

- their similarity is at least 0.99, or
- it is at least 0.90 and, for both of them, whatever comes after their copies is three times further away.

Measured on 200 made copies of each kind (`benchmarks/doctor.py`); found of them, and images called copies among those
that come as they are:

    set            JPEG 75  JPEG 30  half size  ×1.5   ×1.4 brighter  mirrored   as they come
    digits, 8 px      100 %     15 %        0 %   56 %         56 %       0 %    4 of 1,797
    sign-digits       100 %    100 %      100 %  100 %         96 %       0 %    0 of 2,062
    clothing-96px     100 %    100 %      100 %  100 %         98 %       2 %    2 of 3,781 (a true pair)

Images cut by 5 % are not found. Mirrored copies count where the image is its own mirror image. Of products before one
background some variants pass for copies: 49 of the first 12,000 images of Fashion-MNIST.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.workers import Progress
from vitreous.seeding import derive, permutation

SIDE_PX = 32
"""Of gray thumbnails; those in colour have a quarter of it."""

CERTAIN = 0.99
LEAST = 0.90
_GAP = 3.0
_NEIGHBOURS = 16
_FREQUENCIES = 16

_CELL = 2_048
"""Up to twice so many images are compared all with all; more are put into cells of about this size."""
_CELLS_AN_IMAGE = 3
_ROWS = 1_024
_DESCRIBED_AT_ONCE = 8_192

# Two pictures of one shape in two colours are no copies; a gray copy of a colour picture is one.
_LEAST_COLOUR = 6.0
_COLOUR_AGREES = 0.8

Gray = NDArray[np.uint8]
"""`[n, SIDE_PX, SIDE_PX]`."""
Coloured = NDArray[np.uint8]
"""`[n, SIDE_PX // 4, SIDE_PX // 4, 3]`."""


def describe(gray: Gray) -> Tensor:
    """What `find_copies` compares.

    Args:
        gray: Thumbnails, `[n, SIDE_PX, SIDE_PX]`.

    Returns:
        Unit vectors, float32, `[n, 255]`; brightness and contrast leave them alone. Zero for a constant image.
    """
    place = torch.arange(SIDE_PX, dtype=torch.float32) + 0.5
    frequency = torch.arange(_FREQUENCIES, dtype=torch.float32)
    waves = torch.cos(torch.pi / SIDE_PX * frequency[:, None] * place)
    weight = torch.hypot(frequency[:, None], frequency)
    parts = []
    for start in range(0, len(gray), _DESCRIBED_AT_ONCE):
        pixels = torch.from_numpy(gray[start : start + _DESCRIBED_AT_ONCE]).float()
        spectrum = (waves @ (pixels - pixels.mean(dim=(1, 2), keepdim=True)) @ waves.T) * weight
        vectors = spectrum.flatten(1)[:, 1:]
        length = vectors.norm(dim=1, keepdim=True)
        parts.append(torch.where(length > 1e-2 * SIDE_PX, vectors / length.clamp(min=1e-6), 0.0))
    return torch.cat(parts) if parts else torch.empty(0, _FREQUENCIES**2 - 1)


def find_copies(gray: Gray, colour: Coloured, progress: Progress | None = None) -> NDArray[np.int64]:
    """Group what is alike; see the top of this file for what counts.

    Args:
        gray: Thumbnails of different files, `[n, SIDE_PX, SIDE_PX]`.
        colour: The same images, `[n, SIDE_PX // 4, SIDE_PX // 4, 3]`.
        progress: Called with how many images of how many were compared with others.

    Returns:
        A number for each image, `[n]`: images of one number are copies of each other. Constant images stand alone.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(gray)
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    vectors = describe(gray)
    shown = torch.nonzero(vectors.any(dim=1)).flatten()
    similarity, neighbour = _nearest(vectors, _cells(_coarse(gray), shown), progress)
    limit = _limits(similarity)
    accepted = similarity >= limit[:, None]
    first = torch.arange(count)[:, None].expand_as(neighbour)[accepted].numpy()
    second, certain = neighbour[accepted].numpy(), (similarity[accepted] >= CERTAIN).numpy()
    agree = _colours_agree(colour, first, second)
    first, second, certain = first[agree], second[agree], certain[agree]
    links = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count)).tocsr()
    sure = coo_matrix((certain.astype(np.int8), (first, second)), shape=(count, count)).tocsr()
    # Both must stand out for each other: else a crowd of look-alikes would gather around one odd image.
    return connected_components(links.minimum(links.T) + sure, directed=False)[1].astype(np.int64)


def _limits(similarity: Tensor) -> Tensor:
    """The similarity from which on an image's neighbours are its copies; `similarity` is sorted, largest first."""
    distance = (1.0 - similarity).clamp(min=1e-4)
    ends = (distance[:, 1:] >= _GAP * distance[:, :-1]) & (similarity[:, :-1] >= LEAST)
    places = torch.arange(ends.shape[1]).expand_as(ends)
    last = torch.where(ends, places, -1).amax(dim=1)
    at_gap = similarity.gather(1, last.clamp(min=0)[:, None])[:, 0]
    return torch.where(last >= 0, at_gap, torch.inf).clamp(max=CERTAIN)


def _nearest(vectors: Tensor, cells: Iterator[Tensor], progress: Progress | None) -> tuple[Tensor, Tensor]:
    """The most similar images of each among those that share a cell: similarity, sorted, and which."""
    similarity = torch.full((len(vectors), _NEIGHBOURS), -1.0)
    neighbour = torch.zeros((len(vectors), _NEIGHBOURS), dtype=torch.int64)
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
            found = product.topk(min(_NEIGHBOURS, len(members)), dim=1)
            similarity[rows], neighbour[rows] = _merged(
                (similarity[rows], found.values), (neighbour[rows], members[found.indices])
            )
    return similarity, neighbour


def _merged(similarity: tuple[Tensor, Tensor], neighbour: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The best of both, each image once: two cells may bring the same."""
    known, which = torch.cat(similarity, dim=1), torch.cat(neighbour, dim=1)
    again = ((which[:, :, None] == neighbour[0][:, None]) & (similarity[0] > -1.0)[:, None]).any(dim=2)
    again[:, : similarity[0].shape[1]] = False
    best = known.masked_fill(again, -1.0).topk(_NEIGHBOURS, dim=1)
    return best.values, which.gather(1, best.indices)


def _coarse(gray: Gray) -> Tensor:
    """8 x 8 averages as unit vectors: they change least when an image is encoded anew, so they choose the cells."""
    side = SIDE_PX // 8
    pooled = gray.reshape(-1, 8, side, 8, side).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 64)
    pooled -= pooled.mean(axis=1, keepdims=True)
    return torch.from_numpy(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6))


def _cells(coarse: Tensor, members: Tensor) -> Iterator[Tensor]:
    """Sets of image numbers; each image stands in those of the three centres that it resembles most."""
    if len(members) <= 2 * _CELL:
        yield members
        return
    num_centres = max(2 * _CELLS_AN_IMAGE, _CELLS_AN_IMAGE * len(members) // _CELL)
    centres = coarse[members[permutation(derive(0, "cells"), len(members))[:num_centres]]]
    joined = torch.cat([(part @ centres.T).topk(_CELLS_AN_IMAGE, dim=1).indices
                        for part in coarse[members].split(_DESCRIBED_AT_ONCE)])  # fmt: skip
    order = joined.flatten().argsort(stable=True)
    sizes = torch.bincount(joined.flatten(), minlength=num_centres).tolist()
    for cell in (order // _CELLS_AN_IMAGE).split(sizes):
        if 10 * len(cell) > 7 * len(members):  # what does not come apart is compared as it is
            yield members[cell]
        else:
            yield from _cells(coarse, members[cell])


def _colours_agree(colour: Coloured, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    agree = np.ones(len(first), dtype=bool)
    for start in range(0, len(first), _DESCRIBED_AT_ONCE):
        part = slice(start, start + _DESCRIBED_AT_ONCE)
        one, other = (_without_gray(colour[which[part]]) for which in (first, second))
        strength = np.sqrt((one**2).mean(axis=1)), np.sqrt((other**2).mean(axis=1))
        together = (one * other).mean(axis=1) / np.maximum(strength[0] * strength[1], 1e-6)
        agree[part] = (np.minimum(*strength) < _LEAST_COLOUR) | (together >= _COLOUR_AGREES)
    return agree


def _without_gray(colour: Coloured) -> NDArray[np.float32]:
    tint = colour.astype(np.float32)
    tint -= tint.mean(axis=3, keepdims=True)
    return tint.reshape(len(tint), -1)
