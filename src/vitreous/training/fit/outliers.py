"""Pixels of familiar images -> images that are unlike them: generated ones, and others that scikit-learn ships."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.tensors import Pixels


def make_outliers(familiar: Pixels, classes: Sequence[str], seed: int) -> dict[str, Pixels]:
    """Return kinds of outliers by name: of each kind the same number, size and channels as `familiar`.

    The familiar images, which are on the CPU, are blurred and shuffled for this. If the name of a class is a number,
    digits may be familiar, so they are left out.
    """
    from sklearn.datasets import load_digits, load_sample_images

    random, side, (num, channels, height, width) = np.random.default_rng(seed), 128, familiar.shape
    colors = torch.from_numpy(random.integers(256, size=(num, channels, 1, 1), dtype=np.uint8))
    order = torch.from_numpy(random.random((num, 1, height * width)).argsort(axis=2)).expand(-1, channels, -1)
    photos = torch.from_numpy(np.stack(load_sample_images().images)).movedim(3, 1)
    corners = random.integers(np.array(photos.shape[2:]) - side, size=(num, 2))
    squares = [photos[n % 2, :, y : y + side, x : x + side] for n, (y, x) in enumerate(corners.tolist())]
    digits = load_digits().images
    drawn = torch.from_numpy(digits[random.integers(len(digits), size=num)])[:, None] * (255 / digits.max())
    return {
        "noise": torch.from_numpy(random.integers(256, size=familiar.shape, dtype=np.uint8)),
        "plain colors": colors.expand(familiar.shape).contiguous(),
        "blurred images": _fitted(F.adaptive_avg_pool2d(familiar.float(), 4), familiar),
        "shuffled pixels": familiar.flatten(2).gather(2, order).view(familiar.shape),
        "photos of a temple and a flower": _fitted(torch.stack(squares), familiar),
    } | ({} if any(map(str.isdecimal, classes)) else {"handwritten digits": _fitted(drawn, familiar)})


def _fitted(images: Tensor, like: Pixels) -> Pixels:
    """Return images resized to the size and channels of others; gray for one channel, else channels are repeated."""
    channels, *size = like.shape[1:]
    resized = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    if channels == 1:
        resized = resized.mean(dim=1, keepdim=True)
    return resized[:, torch.arange(channels) % resized.shape[1]].round().clamp(0, 255).to(torch.uint8)
