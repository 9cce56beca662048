"""The resizing in exported files is that of Pillow: same pixels, up to a gray level where sums are rounded."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.config import Fit
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.use.export.resize import PillowResize

SIZES = [
    (37, 53),
    (53, 37),
    (8, 12),
    (5, 7),
    (200, 9),
    (9, 200),
    (1, 1),
    (31, 7),
    (8, 40),
    (96, 12),
    (301, 77),
    (64, 96),
]
"""Height and width: smaller, larger, tall, wide, and with one side that fits already."""


def photo_of(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A gradient with noise and sharp edges, whose resizing overshoots."""
    draw = np.random.default_rng(height * 1000 + width)
    smooth = np.linspace(0, 255, height)[:, None, None] * np.linspace(0, 1, width)[None, :, None]
    noisy = smooth + draw.normal(0, 20, (height, width, channels)) + 255 * (draw.random((height, width, 1)) < 0.05)
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("fit", get_args(Fit))
def test_pixels_are_those_of_pillow(fit: Fit, size: tuple[int, int]) -> None:
    photo = photo_of(*size)
    expected = Preprocess((8, 12), 3, fit).pixels(photo).float()
    found = PillowResize((8, 12), fit)(torch.from_numpy(photo)[None])[0]
    differences = (found - expected).abs()
    assert differences.max() <= 1
    assert (differences > 0).float().mean() < 0.02


def test_gray_photos_and_batches_are_resized_like_single_photos() -> None:
    photos = np.stack([photo_of(37, 53, 1), 255 - photo_of(37, 53, 1)])
    expected = torch.stack([Preprocess((11, 7), 1, "pad").pixels(photo[:, :, 0]) for photo in photos]).float()
    found = PillowResize((11, 7), "pad")(torch.from_numpy(photos))
    assert found.shape == (2, 1, 11, 7)
    assert (found - expected).abs().max() <= 1


def test_photo_of_the_size_of_the_model_is_not_changed() -> None:
    photo = photo_of(8, 12)
    found = PillowResize((8, 12), "crop")(torch.from_numpy(photo)[None])[0]
    assert torch.equal(found, torch.from_numpy(photo).permute(2, 0, 1).float())


def test_antialiasing_would_be_missed() -> None:
    """The bound of one gray level is a strict one: the bicubic resizing of PyTorch breaks it by far."""
    photo = photo_of(96, 120)
    expected = np.asarray(Image.fromarray(photo).resize((12, 8), Image.Resampling.BICUBIC)).astype(np.float32)
    pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    plain = torch.nn.functional.interpolate(pixels, (8, 12), mode="bicubic")[0].permute(1, 2, 0).numpy()
    ours = PillowResize((8, 12), "squash")(torch.from_numpy(photo)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - expected).max() <= 1
    assert np.abs(plain - expected).max() > 20
