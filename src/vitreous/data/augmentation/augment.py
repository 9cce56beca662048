"""Pixels -> randomly varied pixels: flip, crop, zoom, rotation and shift in one warp; a policy's operations; erasing.

Each image's variation is a function of (seed, index) alone: the same on every machine, after a resume, in any batch.
"""

import math
from collections.abc import Sequence

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

# One column of draws for each choice, fixed: turning one knob leaves what the others draw as it was.
_FLIP, _AREA, _RATIO, _CROP_X, _CROP_Y, _SHIFT_X, _SHIFT_Y, _ROTATE, _ZOOM = range(9)
_ERASE, _ERASE_AREA, _ERASE_RATIO, _ERASE_X, _ERASE_Y = range(9, 14)
_NUM_DRAWS = 14

_CROP_RATIOS = (3 / 4, 4 / 3)
_ERASE_AREAS = (0.02, 1 / 3)
_ERASE_RATIOS = (0.3, 1 / 0.3)


class Augment:
    """Vary images at random, each in its own way; nothing asked, nothing changed.

    In the order in which a sequence of single operations would be applied: an image is cropped and enlarged to its size
    again; zoomed and rotated around the centre; shifted by whole pixels, so that an image that is only shifted stays
    sharp; mirrored; goes through the policies; and a rectangle is painted over in its mean colour.

    Args:
        flip: Mirror left and right half of the time.
        min_crop_area: The crop's share of the area is drawn from [`min_crop_area`, 1], its aspect ratio relative to the
            image's from [3/4, 4/3]; 1: no crop.
        max_shift: The shift is drawn from [−`max_shift`, `max_shift`], as a share of the side, in both directions.
        max_rotate_deg: The angle is drawn from [−`max_rotate_deg`, `max_rotate_deg`].
        max_scale: The zoom is drawn from [1 − `max_scale`, 1 + `max_scale`].
        erase_rate: How often a rectangle of 2 % to a third of the area is erased.
        fill: What comes in from outside: the edge repeated, black, or the image mirrored at its edge.
        policies: Applied one after the other to images that were warped.

    Source:
        Crop: Szegedy et al. 2014 (1409.4842), section 6. Erasing: Zhong et al. 2017 (1708.04896), alg. 1, but with the
        image's mean colour, and a rectangle that is too long for the image is cut off instead of drawn again.
    """

    def __init__(
        self,
        *,
        flip: bool = False,
        min_crop_area: float = 1.0,
        max_shift: float = 0.0,
        max_rotate_deg: float = 0.0,
        max_scale: float = 0.0,
        erase_rate: float = 0.0,
        fill: Fill = "edge",
        policies: Sequence[Policy] = (),
    ) -> None:
        self.flip = flip
        self.min_crop_area = min_crop_area
        self.max_shift = max_shift
        self.max_rotate_deg = max_rotate_deg
        self.max_scale = max_scale
        self.erase_rate = erase_rate
        self.fill = fill
        self.policies = tuple(policies)

    def __call__(self, pixels: Pixels, indices: NDArray[np.int64], seed: int) -> Varied:
        """Vary a batch.

        Args:
            pixels: uint8, `[batch, channels, height, width]`, on any device.
            indices: Each image's number, `[batch]`; equal numbers draw alike.
            seed: From `derive`, one for each epoch.

        Returns:
            Float32 images in 0..255, same shape and device; whole numbers where no warp and no policy was asked.
        """
        draws = torch.from_numpy(uniform(seed, indices, _NUM_DRAWS))
        images = pixels.to(torch.float32)
        if self._warps:
            images = warp(images, self.matrices(draws, images.shape[-2], images.shape[-1]), fill=self.fill)
        elif self.flip:
            mirrored = to_device(draws[:, _FLIP] < 0.5, images.device).view(-1, 1, 1, 1)
            images = torch.where(mirrored, images.flip(-1), images)
        for policy in self.policies:
            images = policy(images, indices, seed)
        return self._erase(images, to_device(draws, images.device)) if self.erase_rate else images

    @property
    def _warps(self) -> bool:
        return self.min_crop_area < 1 or self.max_shift > 0 or self.max_rotate_deg > 0 or self.max_scale > 0

    def matrices(self, draws: Float[Tensor, "batch draws"], height: int, width: int) -> Matrices:
        """Where each pixel of the result comes from; see `warp`.

        With c the crop, r rotation and zoom, t the shift and f the mirror image, source = c(r⁻¹(t⁻¹(f(target)))).
        """
        sides = torch.tensor([width, height], dtype=torch.float32, device=draws.device)
        box, box_centre = self._crop_boxes(draws)
        angle = math.radians(self.max_rotate_deg) * _both_ways(draws[:, _ROTATE])
        zoom = 1 + self.max_scale * _both_ways(draws[:, _ZOOM])
        shift_px = torch.round(self.max_shift * _both_ways(draws[:, [_SHIFT_X, _SHIFT_Y]]) * sides)
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
        # Angles hold in pixels, not in shares of unequal sides.
        turn = turn / zoom.view(-1, 1, 1) * (sides[None, :] / sides[:, None])
        offset = -torch.einsum("bij,bj->bi", turn, 2 * shift_px / sides)
        mirror = torch.ones_like(shift_px)
        if self.flip:
            mirror[:, 0] = torch.where(draws[:, _FLIP] < 0.5, -1.0, 1.0)
        linear = box[:, :, None] * turn * mirror[:, None, :]
        return torch.cat([linear, (box * offset + box_centre)[:, :, None]], dim=2)

    def _crop_boxes(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Width and height as shares of the sides, `[batch, 2]`, and the centre in −1 to 1, `[batch, 2]`."""
        if self.min_crop_area >= 1:
            return draws.new_ones(len(draws), 2), draws.new_zeros(len(draws), 2)
        area = self.min_crop_area + (1 - self.min_crop_area) * draws[:, _AREA]
        ratio = _log_uniform(draws[:, _RATIO], *_CROP_RATIOS)
        box = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1.0)
        return box, (1 - box) * _both_ways(draws[:, [_CROP_X, _CROP_Y]])

    def _erase(self, images: Varied, draws: Tensor) -> Varied:
        height, width = images.shape[-2:]
        area = _ERASE_AREAS[0] + (_ERASE_AREAS[1] - _ERASE_AREAS[0]) * draws[:, _ERASE_AREA]
        ratio = _log_uniform(draws[:, _ERASE_RATIO], *_ERASE_RATIOS)
        rows = _inside((area * ratio).sqrt() * math.sqrt(height * width), draws[:, _ERASE_Y], height)
        columns = _inside((area / ratio).sqrt() * math.sqrt(height * width), draws[:, _ERASE_X], width)
        erased = rows[:, None, :, None] & columns[:, None, None, :]
        erased = erased & (draws[:, _ERASE] < self.erase_rate).view(-1, 1, 1, 1)
        return torch.where(erased, images.mean(dim=(2, 3), keepdim=True), images)


def _both_ways(draws: Tensor) -> Tensor:
    """[0, 1) -> [−1, 1)."""
    return 2 * draws - 1


def _log_uniform(draws: Tensor, low: float, high: float) -> Tensor:
    """[0, 1) -> [low, high), each factor alike likely."""
    return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * draws)


def _inside(length: Tensor, place: Tensor, side: int) -> Tensor:
    """Which of `side` pixels lie in a stretch of `length` px (rounded, at least 1) at `place`, `[batch, side]`."""
    length = length.round().clamp(1, side)
    start = torch.floor(place * (side - length + 1))[:, None]
    pixel = torch.arange(side, device=length.device)
    return (pixel >= start) & (pixel < start + length[:, None])
