"""Pixels -> augmented pixels: crop, zoom, rotation, shift and flip in one warp; then a policy's operations; erasing.

The augmentation of an image is a function of only (seed, index): the same on every machine, after a resume, and in any
batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.augmentation.policy import Policy
from vitreous.data.augmentation.warp import Matrices, warp
from vitreous.data.config import Fill
from vitreous.seeding import uniform
from vitreous.tensors import Pixels, Varied
from vitreous.transfer import to_device

CROP_ASPECT_RATIOS = (3 / 4, 4 / 3)
ERASED_AREAS = (0.02, 1 / 3)
ERASED_ASPECT_RATIOS = (0.3, 1 / 0.3)


Draw = IntEnum(
    "Draw",
    "FLIP CROP_AREA CROP_ASPECT_RATIO CROP_X CROP_Y SHIFT_X SHIFT_Y ROTATE SCALE "
    "ERASE ERASED_AREA ERASED_ASPECT_RATIO ERASED_X ERASED_Y",
    start=0,
)
"""The column of an image's random numbers that decides each choice.

All columns are always drawn, so a change of one setting does not change the draws of the others.
"""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random augmentation of each image; with the defaults, images do not change.

    The order is that of a sequence of torchvision transforms: `RandomResizedCrop`; zoom and rotation around the center;
    a shift by whole pixels, which keeps a merely shifted image sharp; `RandomHorizontalFlip`; the policies;
    `RandomErasing`. All geometric transforms are one matrix, so that an image is interpolated only once.

    Attributes:
        flip: Mirror left and right with probability 0.5.
        min_crop_area: The crop's share of the area is drawn from [`min_crop_area`, 1], and its aspect ratio relative to
            the image's from [3/4, 4/3]; 1 for no crop.
        max_shift: The shift along each axis is drawn from [−`max_shift`, `max_shift`], as a share of the side.
        max_rotate_deg: The angle is drawn from [−`max_rotate_deg`, `max_rotate_deg`].
        max_scale: The zoom factor is drawn from [1 − `max_scale`, 1 + `max_scale`].
        erase_rate: Probability of erasing a rectangle of 2% to a third of the area.
        fill: What fills pixels from outside the image: the repeated edge, black, or the image reflected at its edge.
        policies: Applied in this order to the warped images.

    Source:
        Crop: Szegedy et al. 2014 (1409.4842), section 6. Erasing: Zhong et al. 2017 (1708.04896), alg. 1. Unlike there,
        the rectangle gets the image's mean color, and one that is too long is cut off instead of redrawn.
    """

    flip: bool = False
    min_crop_area: float = 1.0
    max_shift: float = 0.0
    max_rotate_deg: float = 0.0
    max_scale: float = 0.0
    erase_rate: float = 0.0
    fill: Fill = "edge"
    policies: Sequence[Policy] = ()

    def __call__(self, pixels: Pixels, indices: NDArray[np.int64], seed: int) -> Varied:
        """Augment a batch.

        Images with equal numbers in `indices`, `[batch]`, get the same random draws. The seed comes from `derive`; use
        another one for each epoch. Return float32 images in 0..255 of the same shape and device; whole numbers if there
        is no warp and no policy.
        """
        draws = torch.from_numpy(uniform(seed, indices, len(Draw)))
        images = pixels.to(torch.float32)
        if self.min_crop_area < 1 or self.max_shift or self.max_rotate_deg or self.max_scale:
            images = warp(images, self.matrices(draws, images.shape[-2], images.shape[-1]), fill=self.fill)
        elif self.flip:
            mirrored = to_device(draws[:, Draw.FLIP] < 0.5, images.device).view(-1, 1, 1, 1)
            images = torch.where(mirrored, images.flip(-1), images)
        for policy in self.policies:
            images = policy(images, indices, seed)
        return self._erase(images, to_device(draws, images.device)) if self.erase_rate else images

    def matrices(self, draws: Float[Tensor, "batch draws"], height: int, width: int) -> Matrices:
        """Return the matrices that map each pixel of the result to its place in the image; see `warp`.

        With crop c, rotation and zoom r, shift t and flip f: source = c(r⁻¹(t⁻¹(f(target)))).
        """
        sides = torch.tensor([width, height], dtype=torch.float32, device=draws.device)
        box, box_center = self._crop_boxes(draws)
        angle = math.radians(self.max_rotate_deg) * _signed(draws[:, Draw.ROTATE])
        zoom = 1 + self.max_scale * _signed(draws[:, Draw.SCALE])
        shift_px = torch.round(self.max_shift * _signed(draws[:, [Draw.SHIFT_X, Draw.SHIFT_Y]]) * sides)
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
        # Rotate in pixels, not in relative coordinates, whose units differ between the axes.
        turn = turn / zoom.view(-1, 1, 1) * (sides[None, :] / sides[:, None])
        offset = -torch.einsum("bij,bj->bi", turn, 2 * shift_px / sides)
        mirror = torch.ones_like(shift_px)
        if self.flip:
            mirror[:, 0] = torch.where(draws[:, Draw.FLIP] < 0.5, -1.0, 1.0)
        linear = box[:, :, None] * turn * mirror[:, None, :]
        return torch.cat([linear, (box * offset + box_center)[:, :, None]], dim=2)

    def _crop_boxes(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Draw width and height as shares of the sides, `[batch, 2]`, and the center in [−1, 1], `[batch, 2]`."""
        if self.min_crop_area >= 1:
            return draws.new_ones(len(draws), 2), draws.new_zeros(len(draws), 2)
        area = self.min_crop_area + (1 - self.min_crop_area) * draws[:, Draw.CROP_AREA]
        ratio = _log_uniform(draws[:, Draw.CROP_ASPECT_RATIO], *CROP_ASPECT_RATIOS)
        box = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1.0)
        return box, (1 - box) * _signed(draws[:, [Draw.CROP_X, Draw.CROP_Y]])

    def _erase(self, images: Varied, draws: Tensor) -> Varied:
        height, width = images.shape[-2:]
        area = ERASED_AREAS[0] + (ERASED_AREAS[1] - ERASED_AREAS[0]) * draws[:, Draw.ERASED_AREA]
        ratio = _log_uniform(draws[:, Draw.ERASED_ASPECT_RATIO], *ERASED_ASPECT_RATIOS)
        rows = _segment((area * ratio).sqrt() * math.sqrt(height * width), draws[:, Draw.ERASED_Y], height)
        columns = _segment((area / ratio).sqrt() * math.sqrt(height * width), draws[:, Draw.ERASED_X], width)
        erased = rows[:, None, :, None] & columns[:, None, None, :]
        erased = erased & (draws[:, Draw.ERASE] < self.erase_rate).view(-1, 1, 1, 1)
        return torch.where(erased, images.mean(dim=(2, 3), keepdim=True), images)


def _signed(draws: Tensor) -> Tensor:
    """Map [0, 1) to [−1, 1)."""
    return 2 * draws - 1


def _log_uniform(draws: Tensor, low: float, high: float) -> Tensor:
    """Map [0, 1) to [low, high), uniformly in the logarithm."""
    return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * draws)


def _segment(length: Tensor, position: Tensor, side: int) -> Tensor:
    """Mark a segment of `length` px (rounded, at least 1) of `side` pixels, `[batch, side]`.

    `position` in [0, 1) selects one of the places where the segment fits.
    """
    length = length.round().clamp(1, side)
    start = torch.floor(position * (side - length + 1))[:, None]
    pixel = torch.arange(side, device=length.device)
    return (pixel >= start) & (pixel < start + length[:, None])
