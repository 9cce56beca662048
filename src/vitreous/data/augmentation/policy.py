"""Images -> images that each went through operations of their own: RandAugment, TrivialAugment, 3-Augment, jitter.

Each image draws from (seed, index) alone: the same result in any batch, after a resume, on any device. Images that
drew the same operation go through it together, so that a layer costs about one operation an image.
"""

import math
from abc import ABC, abstractmethod
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

IDENTITY = "identity"
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
RECOLORS = ("brightness", "contrast", "saturation", "sharpness", "posterize", "solarize", "autocontrast", "equalize")
NAMES = (IDENTITY, *MOVES, *RECOLORS)
"""The 14 operations that RandAugment and TrivialAugment draw from, all alike likely."""


@dataclass(frozen=True)
class Reach:
    """How far each operation goes at strength 1.

    Attributes:
        shear: Pixels to the side for each pixel from the centre.
        translate: Share of the side.
        rotate_deg: To either side.
        enhance: Brightness, contrast, saturation and sharpness take factors 1 ± this.
        posterize_bits: How many of 8 bits are lost.
    """

    shear: float
    translate: float
    rotate_deg: float
    enhance: float
    posterize_bits: int


RANDAUGMENT = Reach(shear=0.3, translate=150 / 331, rotate_deg=30.0, enhance=0.9, posterize_bits=4)
TRIVIALAUGMENT = Reach(shear=0.99, translate=1 / 7, rotate_deg=135.0, enhance=0.99, posterize_bits=6)


class Policy(ABC):
    """Varies images that were cropped and mirrored already."""

    @abstractmethod
    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """Vary a batch; `indices` and `seed` are all that decides how.

        Args:
            images: In 0..255.
            indices: Each image's number, `[batch]`; equal numbers draw alike.
            seed: From `derive`, one for each epoch.
        """


class RandAugment(Policy):
    """`num_ops` operations after another, each drawn from 14, all of one `strength`.

    Args:
        num_ops: Operations an image, at least 1.
        strength: As a share of each operation's reach, in [0, 1]; its sign is drawn.
        rate: Share of the images that are varied at all.
        fill: What comes in from outside.

    Source:
        Cubuk et al. 2019 (1909.13719), section 3; reaches as in AutoAugment (1805.09501), table 6. Strength 0.9 is the
        magnitude 9 (of 10) of their code and of DeiT. Every operation grows with the strength, where theirs posterises
        and solarises less; shears and turns are around the centre.
    """

    def __init__(self, *, num_ops: int = 2, strength: float = 0.9, rate: float = 1.0, fill: Fill = "edge") -> None:
        self.num_ops = num_ops
        self.strength = strength
        self.rate = rate
        self.fill = fill

    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """As `Policy`."""
        varies = _varies(indices, seed, self.rate)
        for layer in range(self.num_ops):
            draws = uniform(derive(seed, "policy", layer), indices, 3)
            chosen = _chosen(draws[:, 0], varies)
            images = apply_ops(images, chosen, self.strength * _signs(draws[:, 1]), RANDAUGMENT, self.fill)
        return images


class TrivialAugment(Policy):
    """One operation drawn from 14, of a strength that is drawn too: nothing to tune.

    Args:
        rate: Share of the images that are varied at all.
        fill: What comes in from outside.

    Source:
        Müller & Hutter 2021 (2103.10158), algorithm 1, their wide reaches. The strength is continuous instead of one of
        31; images move by a seventh of their side, which is their 32 px at 224 px: at 32 px theirs move out wholly.
    """

    def __init__(self, *, rate: float = 1.0, fill: Fill = "edge") -> None:
        self.rate = rate
        self.fill = fill

    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """As `Policy`."""
        draws = uniform(derive(seed, "policy", 0), indices, 3)
        chosen = _chosen(draws[:, 0], _varies(indices, seed, self.rate))
        return apply_ops(images, chosen, draws[:, 2] * _signs(draws[:, 1]), TRIVIALAUGMENT, self.fill)


class ThreeAugment(Policy):
    """Gray, or solarised at 128, or blurred with 0.1 to 2 px: one of the three, alike likely.

    Args:
        rate: Share of the images that are varied at all.

    Source: Touvron et al. 2022, DeiT III (2204.07118), section 3.2 and their code. No difference; their colour jitter
    is a `ColorJitter` after it.
    """

    def __init__(self, *, rate: float = 1.0) -> None:
        self.rate = rate

    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """As `Policy`."""
        draws = uniform(derive(seed, "policy", 0), indices, 3)
        which = np.where(_varies(indices, seed, self.rate), (3 * draws[:, 0]).astype(np.int64), -1)
        varied = images.clone()
        for number in range(3):
            rows = np.flatnonzero(which == number)
            if not len(rows):
                continue
            places = to_device(torch.from_numpy(rows), images.device)
            varied[places] = (
                ops.grayscale(images[places]) if number == 0 else
                ops.solarize(images[places], torch.full((len(rows),), 128.0)) if number == 1 else
                ops.gaussian_blur(images[places], torch.from_numpy(0.1 + 1.9 * draws[rows, 2]))
            )  # fmt: skip
        return varied


class ColorJitter(Policy):
    """Brightness, contrast and saturation, each by its own factor from [1 − `amount`, 1 + `amount`].

    Source: torchvision's `ColorJitter`, as in DeiT III (2204.07118), which uses 0.3; always in this order, where theirs
    draws one of six.
    """

    def __init__(self, *, amount: float) -> None:
        self.amount = amount

    def __call__(self, images: Varied, indices: NDArray[np.int64], seed: int) -> Varied:
        """As `Policy`."""
        draws = torch.from_numpy(uniform(derive(seed, "jitter"), indices, 3))
        factors = 1 + self.amount * (2 * draws - 1)
        images = ops.brightness(images, factors[:, 0])
        images = ops.contrast(images, factors[:, 1])
        return ops.saturation(images, factors[:, 2])


def apply_ops(
    images: Varied, chosen: NDArray[np.int64], amounts: NDArray[np.float32], reach: Reach, fill: Fill
) -> Varied:
    """Apply one operation to each image.

    Args:
        images: In 0..255.
        chosen: Positions in `NAMES`, `[batch]`.
        amounts: Strengths with their sign, in [−1, 1], `[batch]`; operations without direction take the strength.
        reach: What a strength of 1 means.
        fill: What comes in from outside.

    Returns:
        New images; the given ones stay as they are.
    """
    size = (images.shape[-2], images.shape[-1])
    varied = images.clone()
    for names in (MOVES, *((name,) for name in RECOLORS)):
        rows = np.flatnonzero(np.isin(chosen, [NAMES.index(name) for name in names]))
        if not len(rows):
            continue
        places = to_device(torch.from_numpy(rows), images.device)
        group, strengths = images[places], torch.from_numpy(amounts[rows])
        if names == MOVES:
            varied[places] = warp(group, moves(chosen[rows], strengths, reach, size), fill=fill)
        else:
            varied[places] = _recolored(names[0], group, strengths, reach)
    return varied


def moves(chosen: NDArray[np.int64], amounts: PerImage, reach: Reach, size: tuple[int, int]) -> Matrices:
    """The matrix of each image's shear, shift or turn around the centre; see `warp`."""
    height, width = size
    kind = torch.from_numpy(chosen)

    def of(name: str, value: Tensor) -> Tensor:
        return torch.where(kind == NAMES.index(name), value, 0.0)

    angle = of("rotate", math.radians(reach.rotate_deg) * amounts)
    linear = torch.stack([
        angle.cos(), (angle.sin() + of("shear_x", reach.shear * amounts)) * height / width,
        (of("shear_y", reach.shear * amounts) - angle.sin()) * width / height, angle.cos(),
    ], dim=1).view(-1, 2, 2)  # fmt: skip
    # Whole pixels: an image that is only shifted stays sharp.
    shift = [of(f"translate_{axis}", 2 * torch.round(reach.translate * amounts * side) / side)
             for axis, side in (("x", width), ("y", height))]  # fmt: skip
    return torch.cat([linear, torch.stack(shift, dim=1)[:, :, None]], dim=2)


def _recolored(name: str, images: Varied, amounts: PerImage, reach: Reach) -> Varied:
    enhance = {"brightness": ops.brightness, "contrast": ops.contrast, "saturation": ops.saturation,
               "sharpness": ops.sharpness}  # fmt: skip
    if name in enhance:
        return enhance[name](images, 1 + reach.enhance * amounts)
    if name == "posterize":
        return ops.posterize(images, 8 - torch.round(reach.posterize_bits * amounts.abs()))
    if name == "solarize":
        return ops.solarize(images, 256 * (1 - amounts.abs()))
    return ops.autocontrast(images) if name == "autocontrast" else ops.equalize(images)


def _varies(indices: NDArray[np.int64], seed: int, rate: float) -> NDArray[np.bool_]:
    """Which images are varied at all: all operations of an image, or none."""
    return uniform(derive(seed, "policy"), indices, 1)[:, 0] < rate


def _chosen(draws: NDArray[np.float32], varies: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(varies, (len(NAMES) * draws).astype(np.int64), NAMES.index(IDENTITY))


def _signs(draws: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(draws < 0.5, np.float32(-1), np.float32(1))
