"""Images, an affine map for each -> shifted, rotated, sheared, enlarged or (with antialiasing) reduced images."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vitreous.data.config import Fill
from vitreous.tensors import Varied
from vitreous.transfer import to_device

ANTIALIAS_FROM = 1.25
"""Source pixels per pixel of the result from which several samples are averaged.

Below this, the two pixels per axis that bilinear interpolation reads leave hardly any aliasing.
"""
SAMPLES_PER_PX = 1.5
"""Samples per source pixel that a pixel of the result covers, along each axis."""
MAX_SAMPLES = 8
"""Maximum number of samples along each axis; images that shrink to less than about a fifth alias a little."""

_PADDING_MODES = {"edge": "border", "black": "zeros", "reflect": "reflection"}

Matrices = Float[Tensor, "batch 2 3"]
"""Maps from places in the result to places in the image, in the coordinates of `affine_grid`: [−1, 1] on each axis."""


def warp(images: Varied, matrices: Matrices, *, fill: Fill = "edge", size: tuple[int, int] | None = None) -> Varied:
    """Sample each image where its matrix says: bilinear, with antialiasing where the image shrinks.

    Let a pixel of the result cover s > 1 source pixels along an axis. It is then the mean of samples over a stretch of
    √(2 − 2 / s²) pixels of the result. With the bilinear interpolation of each sample, this has the same variance as
    the triangle filter that Pillow and PyTorch use for antialiased bilinear resizing.

    Images may be on any device; matrices are on the CPU, so that the host does not wait for the device. `size` is
    height and width of the result in px, which is float; None for those of `images`.
    """
    height, width = size or (images.shape[-2], images.shape[-1])
    shrinkage = _shrinkage(matrices, (images.shape[-2], images.shape[-1]), (height, width))
    largest = shrinkage.amax(dim=1)
    counts = torch.where(largest > ANTIALIAS_FROM, (SAMPLES_PER_PX * largest).ceil().clamp(max=MAX_SAMPLES), 1.0)
    if not (counts > 1).any():
        return _sample(images, matrices, fill, (height, width))
    result = images.new_empty(*images.shape[:2], height, width)
    for count in counts.unique().tolist():
        selected = torch.nonzero(counts == count)[:, 0]
        rows = to_device(selected, images.device)
        offsets_px = _sample_offsets_px(shrinkage[selected], int(count))
        result[rows] = _sample_mean(images[rows], matrices[selected], offsets_px, fill, (height, width))
    return result


def _shrinkage(matrices: Matrices, source: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "batch 2"]:
    """Return how many source pixels one pixel of the result covers along its x and its y axis."""
    source_sides = torch.tensor([source[1], source[0]], dtype=matrices.dtype)
    sides = torch.tensor([size[1], size[0]], dtype=matrices.dtype)
    return (matrices[:, :, :2] * source_sides[:, None] / sides[None, :]).norm(dim=1)


def _sample_offsets_px(shrinkage: Float[Tensor, "batch 2"], count: int) -> Float[Tensor, "batch samples 2"]:
    """Return the x and y offsets of `count` samples, in pixels of the result; 0 along an axis that does not shrink."""
    if count == 1:
        return shrinkage.new_zeros(len(shrinkage), 1, 2)
    stretch = ((2 - 2 / shrinkage.clamp(min=1) ** 2) / (1 - 1 / count**2)).sqrt()
    positions = (torch.arange(count, dtype=shrinkage.dtype) + 0.5) / count - 0.5
    return positions[None, :, None] * stretch[:, None, :]


def _sample_mean(
    images: Varied, matrices: Matrices, offsets_px: Float[Tensor, "batch samples 2"], fill: Fill, size: tuple[int, int]
) -> Varied:
    """Average samples over all combinations of x and y offsets, which are in pixels of the result."""
    height, width = size
    # An offset in the result moves the place in the image along a column of the matrix.
    along_x = matrices[:, None, :, 0] * (offsets_px[:, :, :1] * 2 / width)
    along_y = matrices[:, None, :, 1] * (offsets_px[:, :, 1:] * 2 / height)
    num = offsets_px.shape[1]
    total = torch.zeros((), dtype=images.dtype, device=images.device)
    for i in range(num):
        for j in range(num):
            moved = torch.cat([matrices[:, :, :2], matrices[:, :, 2:] + (along_x[:, i] + along_y[:, j])[..., None]], 2)
            total = total + _sample(images, moved, fill, size)
    return total / num**2


def _sample(images: Varied, matrices: Matrices, fill: Fill, size: tuple[int, int]) -> Varied:
    grid = _grid(to_device(matrices, images.device), size)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=_PADDING_MODES[fill], align_corners=False)


def _grid(matrices: Matrices, size: tuple[int, int]) -> Float[Tensor, "batch height width 2"]:
    """Return the place in the image of each pixel of the result.

    The result is that of `affine_grid`, computed faster: as a sum of what each row and each column contributes.
    """
    rows, columns = ((2 * torch.arange(side, dtype=matrices.dtype, device=matrices.device) + 1) / side - 1
                     for side in size)  # fmt: skip
    of_rows = rows[:, None] * matrices[:, None, :, 1] + matrices[:, None, :, 2]
    of_columns = columns[:, None] * matrices[:, None, :, 0]
    return of_rows[:, :, None] + of_columns[:, None, :]
