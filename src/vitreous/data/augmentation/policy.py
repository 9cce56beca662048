"""Images -> images that each went through random operations: RandAugment, TrivialAugment, 3-Augment, color jitter.

The draws of an image depend on only (seed, index): the result is the same in any batch, after a resume, and on any
device. Images with the same operation are processed together, so a layer costs about one operation per image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.augmentation import operations as ops
from vitreous.data.augmentation.warp import Matrices, warp
from vitreous.data.config import Fill
from vitreous.seeding import derive, uniform
from vitreous.tensors import PerImage, Varied
from vitreous.transfer import to_device


@dataclass(frozen=True)
class Magnitudes:
    """The largest magnitude of each operation, reached at strength 1.

    Attributes:
        shear: Shift in pixels per pixel of distance from the center.
        translate: Shift as a share of the side.
        rotate_deg: Angle in degrees, to either side.
        enhance: Brightness, contrast, saturation and sharpness get factors of 1 ± this.
        posterize_bits: Number of the 8 bits that are removed.
    """

    shear: float
    translate: float
    rotate_deg: float
    enhance: float
    posterize_bits: int


RANDAUGMENT_MAGNITUDES = Magnitudes(shear=0.3, translate=150 / 331, rotate_deg=30.0, enhance=0.9, posterize_bits=4)
TRIVIALAUGMENT_MAGNITUDES = Magnitudes(shear=0.99, translate=1 / 7, rotate_deg=135.0, enhance=0.99, posterize_bits=6)

IDENTITY = "identity"
GEOMETRIC_OPERATIONS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")

COLOR_OPERATIONS: dict[str, Callable[[Varied, PerImage, Magnitudes], Varied]] = {
    "brightness": lambda images, strength, magnitudes: ops.brightness(images, 1 + magnitudes.enhance * strength),
    "contrast": lambda images, strength, magnitudes: ops.contrast(images, 1 + magnitudes.enhance * strength),
    "saturation": lambda images, strength, magnitudes: ops.saturation(images, 1 + magnitudes.enhance * strength),
    "sharpness": lambda images, strength, magnitudes: ops.sharpness(images, 1 + magnitudes.enhance * strength),
    "posterize": lambda images, strength, magnitudes: ops.posterize(
        images, 8 - torch.round(magnitudes.posterize_bits * strength.abs())
    ),
    "solarize": lambda images, strength, magnitudes: ops.solarize(images, 256 * (1 - strength.abs())),
    "autocontrast": lambda images, strength, magnitudes: ops.autocontrast(images),
    "equalize": lambda images, strength, magnitudes: ops.equalize(images),
}
"""Operations on (images, signed strength in [−1, 1] of each, magnitude at strength 1)."""

OPERATIONS = (IDENTITY, *GEOMETRIC_OPERATIONS, *COLOR_OPERATIONS)
"""The 14 operations of RandAugment and TrivialAugment, drawn with equal probability."""


Policy = Callable[[Varied, NDArray[np.int64], int], Varied]
"""(images, indices, seed) -> images that went through random operations.

Values are in 0..255, of images that were already cropped and flipped. The draws depend on only `indices`, `[batch]`,
and `seed`: images with equal numbers get the same ones. The seed comes from `derive`; use another one for each epoch.
"""


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """RandAugment: `num_ops` operations one after the other, each drawn from 14, all of the same strength.

    `strength` is the share of each operation's largest magnitude, in [0, 1]; the direction is drawn. `rate` is the
    probability of changing an image at all. `fill` fills pixels from outside the image.

    Source:
        Cubuk et al. 2019 (1909.13719), section 3; magnitudes of AutoAugment (1805.09501), table 6. Strength 0.9 is
        magnitude 9 (of 10) in their code and in DeiT. Differences: every operation gets stronger with the strength,
        while theirs posterizes and solarizes less; shear and rotation are around the center.
    """

    num_ops: int = 2
    strength: float = 0.9
    rate: float = 1.0
    fill: Fill = "edge"

    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """Apply `num_ops` random operations to each image."""
        is_changed = _draw_changed(indices, seed, self.rate)
        for layer in range(self.num_ops):
            draws = uniform(derive(seed, "policy", layer), indices, 3)
            numbers = _to_operations(draws[:, 0], is_changed)
            strengths = self.strength * _to_signs(draws[:, 1])
            images = apply_operations(images, numbers, strengths, RANDAUGMENT_MAGNITUDES, self.fill)
        return images


@dataclass(frozen=True, kw_only=True)
class TrivialAugment:
    """TrivialAugment: one operation drawn from 14, with a random strength, so that there is nothing to tune.

    `rate` is the probability of changing an image at all. `fill` fills pixels from outside the image.

    Source:
        Müller & Hutter 2021 (2103.10158), algorithm 1, with their wide magnitudes. Differences: the strength is
        continuous instead of one of 31. Images are shifted by at most a seventh of their side, which is their 32 px at
        224 px; an image of 32 px would be shifted out of view by theirs.
    """

    rate: float = 1.0
    fill: Fill = "edge"

    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """Apply one random operation to each image."""
        draws = uniform(derive(seed, "policy", 0), indices, 3)
        numbers = _to_operations(draws[:, 0], _draw_changed(indices, seed, self.rate))
        strengths = draws[:, 2] * _to_signs(draws[:, 1])
        return apply_operations(images, numbers, strengths, TRIVIALAUGMENT_MAGNITUDES, self.fill)


@dataclass(frozen=True, kw_only=True)
class ThreeAugment:
    """3-Augment: grayscale, solarization at 128, or a Gaussian blur of 0.1 to 2 px, with equal probability.

    `rate` is the probability of changing an image at all.

    Source: Touvron et al. 2022, DeiT III (2204.07118), section 3.2 and their code. No differences; the color jitter
    that they apply afterwards is a separate `ColorJitter`.
    """

    rate: float = 1.0

    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """Apply one of the three operations to each image."""
        draws = uniform(derive(seed, "policy", 0), indices, 3)
        is_changed = _draw_changed(indices, seed, self.rate)
        numbers = np.where(is_changed, (3 * draws[:, 0]).astype(np.int64), -1)
        changed = images.clone()
        for number in range(3):
            selected = np.flatnonzero(numbers == number)
            if not len(selected):
                continue
            rows = to_device(torch.from_numpy(selected), images.device)
            changed[rows] = (
                ops.grayscale(images[rows]) if number == 0 else
                ops.solarize(images[rows], torch.full((len(selected),), 128.0)) if number == 1 else
                ops.gaussian_blur(images[rows], torch.from_numpy(0.1 + 1.9 * draws[selected, 2]))
            )  # fmt: skip
        return changed


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Color jitter: brightness, contrast and saturation are multiplied by factors from [1 − `amount`, 1 + `amount`].

    Source: torchvision's `ColorJitter`, as in DeiT III (2204.07118), which uses 0.3. The order is always this one,
    while torchvision draws one of six.
    """

    amount: float

    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """Jitter the colors of each image."""
        draws = torch.from_numpy(uniform(derive(seed, "jitter"), indices, 3))
        factors = 1 + self.amount * (2 * draws - 1)
        images = ops.brightness(images, factors[:, 0])
        images = ops.contrast(images, factors[:, 1])
        return ops.saturation(images, factors[:, 2])


def apply_operations(
    images: Varied, numbers: NDArray[np.int64], strengths: NDArray[np.float32], magnitudes: Magnitudes, fill: Fill
) -> Varied:
    """Apply one operation to a copy of each image.

    Values are in 0..255. `numbers` are positions in `OPERATIONS`, `[batch]`. `strengths` are signed, in [−1, 1],
    `[batch]`; the sign is the direction, if there is one.
    """
    size = (images.shape[-2], images.shape[-1])
    changed = images.clone()
    # All geometric operations are one warp; each color operation runs by itself.
    for names in (GEOMETRIC_OPERATIONS, *((name,) for name in COLOR_OPERATIONS)):
        selected = np.flatnonzero(np.isin(numbers, [OPERATIONS.index(name) for name in names]))
        if not len(selected):
            continue
        rows = to_device(torch.from_numpy(selected), images.device)
        strength = torch.from_numpy(strengths[selected])
        if names == GEOMETRIC_OPERATIONS:
            changed[rows] = warp(
                images[rows], affine_matrices(numbers[selected], strength, magnitudes, size), fill=fill
            )
        else:
            changed[rows] = COLOR_OPERATIONS[names[0]](images[rows], strength, magnitudes)
    return changed


def affine_matrices(
    numbers: NDArray[np.int64], strengths: PerImage, magnitudes: Magnitudes, size: tuple[int, int]
) -> Matrices:
    """Return the matrix of each image's shear, translation or rotation around the center; see `warp`."""
    height, width = size
    operation = torch.from_numpy(numbers)

    def where(name: str, magnitude: Tensor) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), magnitude, 0.0)

    angle = where("rotate", math.radians(magnitudes.rotate_deg) * strengths)
    shear_x, shear_y = (where(name, magnitudes.shear * strengths) for name in ("shear_x", "shear_y"))
    linear = torch.stack([
        angle.cos(), (angle.sin() + shear_x) * height / width,
        (shear_y - angle.sin()) * width / height, angle.cos(),
    ], dim=1).view(-1, 2, 2)  # fmt: skip
    # Shift by whole pixels, so that a merely shifted image stays sharp.
    shift = [where(f"translate_{axis}", 2 * torch.round(magnitudes.translate * strengths * side) / side)
             for axis, side in (("x", width), ("y", height))]  # fmt: skip
    return torch.cat([linear, torch.stack(shift, dim=1)[:, :, None]], dim=2)


def _draw_changed(indices: NDArray[np.int64], seed: int, rate: float) -> NDArray[np.bool_]:
    """Draw which images are changed; the others go through no operation at all."""
    return uniform(derive(seed, "policy"), indices, 1)[:, 0] < rate


def _to_operations(draws: NDArray[np.float32], is_changed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Map draws in [0, 1) to positions in `OPERATIONS`; images that are not changed get the identity."""
    return np.where(is_changed, (len(OPERATIONS) * draws).astype(np.int64), OPERATIONS.index(IDENTITY))


def _to_signs(draws: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map draws in [0, 1) to −1 or 1."""
    return np.where(draws < 0.5, np.float32(-1), np.float32(1))
