"""Images, an affine map for each -> images moved, turned, sheared, enlarged or, without aliasing, shrunk."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vitreous.data.config import Fill
from vitreous.tensors import Varied
from vitreous.transfer import to_device

SHRINKS = 1.25
"""From so many source pixels to one pixel of the result on, it is the mean of several samples.

Below, between one and a quarter more, the two pixels that bilinear interpolation reads leave hardly any aliasing.
"""
SAMPLES_PER_PX = 1.5
MOST_SAMPLES = 8
"""Along an axis; what shrinks to less than about a fifth aliases a little."""

_PADDING = {"edge": "border", "black": "zeros", "reflect": "reflection"}

Matrices = Float[Tensor, "batch 2 3"]
"""Where each pixel of the result comes from, in the coordinates of `affine_grid`: −1 to 1 from edge to edge."""


def warp(images: Varied, matrices: Matrices, *, fill: Fill = "edge", size: tuple[int, int] | None = None) -> Varied:
    """Sample each image where its matrix says: bilinear; antialiased where it shrinks.

    A pixel of the result that covers `s` > 1 source pixels along an axis is the mean of samples spread over a stretch
    of f = √(2 − 2 / s²) pixels of the result. Together with the bilinear interpolation that reads them it has the
    variance of the triangle filter of `s` px that Pillow's and PyTorch's antialiased bilinear resizing uses.

    Args:
        images: Any number of channels, on any device.
        matrices: On the CPU, so that nothing has to wait for the device.
        fill: What comes in from outside: the edge repeated, black, or the image mirrored at its edge.
        size: Height and width of the result, px; None: those of `images`.

    Returns:
        Float images of that size.
    """
    height, width = size or (images.shape[-2], images.shape[-1])
    steps = _steps_px(matrices, (images.shape[-2], images.shape[-1]), (height, width))
    longest = steps.amax(dim=1)
    counts = torch.where(longest > SHRINKS, (SAMPLES_PER_PX * longest).ceil().clamp(max=MOST_SAMPLES), 1.0)
    if not (counts > 1).any():
        return _sampled(images, matrices, fill, (height, width))
    result = images.new_empty(*images.shape[:2], height, width)
    for count in counts.unique().tolist():
        rows = torch.nonzero(counts == count)[:, 0]
        spread, places = _spread(steps[rows], int(count)), to_device(rows, images.device)
        result[places] = _averaged(images[places], matrices[rows], spread, fill, (height, width))
    return result


def _averaged(
    images: Varied, matrices: Matrices, spread: Float[Tensor, "batch samples 2"], fill: Fill, size: tuple[int, int]
) -> Varied:
    """The mean of samples at all places of a square grid, moved by `spread` pixels of the result."""
    height, width = size
    # Moving a place of the result moves its source along the columns of the matrix.
    along_x = matrices[:, None, :, 0] * (spread[:, :, :1] * 2 / width)
    along_y = matrices[:, None, :, 1] * (spread[:, :, 1:] * 2 / height)
    num = spread.shape[1]
    total = torch.zeros((), dtype=images.dtype, device=images.device)
    for i in range(num):
        for j in range(num):
            moved = torch.cat([matrices[:, :, :2], matrices[:, :, 2:] + (along_x[:, i] + along_y[:, j])[..., None]], 2)
            total = total + _sampled(images, moved, fill, size)
    return total / num**2


def _spread(steps: Float[Tensor, "batch 2"], count: int) -> Float[Tensor, "batch samples 2"]:
    """Places of `count` samples along x and y, in pixels of the result; all 0 along an axis that does not shrink."""
    if count == 1:
        return steps.new_zeros(len(steps), 1, 2)
    stretch = ((2 - 2 / steps.clamp(min=1) ** 2) / (1 - 1 / count**2)).sqrt()
    places = (torch.arange(count, dtype=steps.dtype) + 0.5) / count - 0.5
    return places[None, :, None] * stretch[:, None, :]


def _steps_px(matrices: Matrices, source: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "batch 2"]:
    """How many source pixels one pixel of the result covers, along its x and its y."""
    source_sides = torch.tensor([source[1], source[0]], dtype=matrices.dtype)
    sides = torch.tensor([size[1], size[0]], dtype=matrices.dtype)
    return (matrices[:, :, :2] * source_sides[:, None] / sides[None, :]).norm(dim=1)


def _sampled(images: Varied, matrices: Matrices, fill: Fill, size: tuple[int, int]) -> Varied:
    grid = _grid(to_device(matrices, images.device), size)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=_PADDING[fill], align_corners=False)


def _grid(matrices: Matrices, size: tuple[int, int]) -> Float[Tensor, "batch height width 2"]:
    """Where each pixel of the result comes from.

    As `affine_grid`, but not as a product over all pixels: one sum of what a row and what a column contributes.
    """
    rows, columns = ((2 * torch.arange(side, dtype=matrices.dtype, device=matrices.device) + 1) / side - 1
                     for side in size)  # fmt: skip
    of_rows = rows[:, None] * matrices[:, None, :, 1] + matrices[:, None, :, 2]
    of_columns = columns[:, None] * matrices[:, None, :, 0]
    return of_rows[:, :, None] + of_columns[:, None, :]
