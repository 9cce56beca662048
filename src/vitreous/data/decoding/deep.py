"""Color file of 16 bits per channel, opened by Pillow -> its values, of which Pillow itself keeps the high bytes."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SWAPPED = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
_GRAY_WITH_ALPHA = "LA;16B"


def is_deep_color(image: Image.Image) -> bool:
    """Return True for a file, not loaded yet, with 16 bits for each of red, green and blue, or gray and opacity."""
    # Pillow divides "RGBa" by its opacity while it reads, which the second reading cannot do.
    names = [name for name in _raw_modes(image) if not name.startswith("RGBa")]
    return image.mode in ("RGB", "RGBA") and any(name[-4:] in _SWAPPED for name in names)


def is_deep_gray(image: Image.Image) -> bool:
    """Return True if a deep image (see `is_deep_color`) has no color."""
    return _GRAY_WITH_ALPHA in _raw_modes(image)


def read_deep_color(image: Image.Image, again: Image.Image) -> NDArray[np.uint16]:
    """Return all 16 bits, `[height, width, 2 to 4]`.

    Pillow reads the high byte of each value. If the file seems to have the other byte order, it reads the low byte. The
    image is opened, but not loaded yet; `again` is the same file, opened once more.
    """
    again.tile = [_second_reading(tile) for tile in again.tile]  # type: ignore[attr-defined]
    if is_deep_gray(image):
        whole = np.asarray(again)
        high, low = whole[..., ::2], whole[..., 1::2]
    else:
        high, low = np.asarray(image), np.asarray(again)
    return (high.astype(np.uint16) << 8) | low


def _raw_modes(image: Image.Image) -> list[str]:
    """Return how each part of an opened file stores its pixels, e.g. `RGB;16B`."""
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return [str(found[0] if isinstance(found, tuple) else found) for found in arguments]


def _second_reading(tile: Any) -> Any:
    """Return how a part of a file is read again: with the other byte order, or gray and opacity as four channels."""
    name, *others = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
    changed = "RGBA" if name == _GRAY_WITH_ALPHA else name[:-4] + _SWAPPED.get(name[-4:], name[-4:])
    return type(tile)(*tile[:3], (changed, *others))
