"""Class names, colors and counts -> a folder of small PNG files to train on."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

Color = tuple[int, int, int]


def write_pictures(
    root: Path, classes: Mapping[str, tuple[Color, int]], *, seed: int, name: str, noise: float, tint: float = 0.0
) -> Path:
    """Write images of 9 x 14 px (height x width), each class in its own color.

    Args:
        root: Folder to create, with one sub-folder per class.
        classes: Mean color and number of images of each class.
        seed: Seed of the colors.
        name: File name with a place for the number, such as `{:02d}.png`.
        noise: Standard deviation of a pixel from the color of its image.
        tint: Standard deviation of an image's color from that of its class; above 0, classes overlap.

    Returns:
        The folder.
    """
    draw = np.random.default_rng(seed)
    for folder, (color, count) in classes.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            mean = np.array(color) + (draw.normal(0, tint, 3) if tint else 0)
            pixels = np.clip(mean + draw.normal(0, noise, (9, 14, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / name.format(number))
    return root
