"""Generated photos for the tests of the doctor."""

import numpy as np
from PIL import Image


def photo(seed: int, side_px: int = 64) -> Image.Image:
    """Return noise at several scales, stronger at larger scales, like the spectrum of a photo."""
    draw = np.random.default_rng(seed)
    total = np.zeros((side_px, side_px, 3))
    for size in (2, 4, 8, 16, 32):
        layer = Image.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8))
        total += np.asarray(layer.resize((side_px, side_px), Image.Resampling.BICUBIC), dtype=float) / size
    total -= total.min()
    return Image.fromarray((255 * total / total.max()).astype(np.uint8))
