"""Values of patches -> orders of patches and of pixels, most relevant first; maps to compare with."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from vitreous.seeding import derive, permutation, uniform
from vitreous.use.explain.pictures.geometry import interpolation
from vitreous.use.explain.relevance import PatchValues

Order = Int64[Tensor, "batch units"]
"""Numbers of pixels or patches of each image, most relevant first."""


def in_order(values: Float[Tensor, "batch units"], seed: int = 0) -> Order:
    """Return the numbers of the units by descending value.

    Units of equal value are in random order, the same in all images. Otherwise a map with many zeros would be scored by
    where they lie.
    """
    shuffled = torch.from_numpy(permutation(derive(seed, "ties"), values.shape[1])).to(values.device)
    return shuffled[values[:, shuffled].argsort(dim=1, descending=True, stable=True)]


def upsampled(maps: PatchValues, img_size: tuple[int, int], token_center: float = 0.5) -> Float[Tensor, "batch pixels"]:
    """Return a value for each pixel, row by row, by bilinear interpolation between the centers of the tokens."""
    vertical, horizontal = (
        torch.from_numpy(interpolation(count, (0, side), side, token_center)).to(maps)
        for count, side in zip(maps.shape[1:], img_size, strict=True)
    )
    return (vertical @ maps @ horizontal.T).flatten(1)


def random_maps(numbers: NDArray[np.int64], grid_size: tuple[int, int], seed: int = 0) -> PatchValues:
    """Return random values for images with these numbers; those of an image do not depend on the other images."""
    drawn = uniform(derive(seed, "random order"), numbers, grid_size[0] * grid_size[1])
    return torch.from_numpy(drawn).view(-1, *grid_size)


def center_maps(count: int, grid_size: tuple[int, int]) -> PatchValues:
    """Return values for `count` images that decrease with the distance from the center of the image."""
    rows, columns = (torch.arange(size) - (size - 1) / 2 for size in grid_size)
    return -(rows[:, None] ** 2 + columns**2).sqrt().expand(count, -1, -1)
