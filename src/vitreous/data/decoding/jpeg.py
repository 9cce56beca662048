"""JPEG bytes -> pixels, by simplejpeg if it is installed and gives exactly the pixels of Pillow.

Both use libjpeg-turbo with the same settings. Pillow's own overhead takes ten times as long as decoding a 32 px image,
and simplejpeg has no such overhead.
"""

from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.limits import max_pixels

_JPEG_START = b"\xff\xd8\xff"
_ORIENTATION_MARKERS = (b"Exif\x00", b"rientation")
"""Bytes in every file that may declare an orientation, in EXIF or XMP metadata."""
_COLORS = {"YCbCr": "RGB", "Gray": "GRAY"}


def decode_jpeg(
    content: bytes, at_least: tuple[int, int] | None = None, shape: tuple[int, int, int] | None = None
) -> NDArray[np.uint8] | None:
    """Decode a plain JPEG file, or return None if Pillow has to decode it.

    Pillow decodes images of more than `max_pixels()` and, with `shape`, those of another (height, width, channels). It
    also decodes those that it would reduce because only `at_least`, (height, width) in px, will be used, as the two
    libraries reduce differently.

    Returns:
        `[height, width, 1 or 3]`; None if simplejpeg is missing, or the file is damaged, truncated, rotated, CMYK or
        not a JPEG.
    """
    simplejpeg = _simplejpeg()
    if simplejpeg is None or not content.startswith(_JPEG_START):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content, strict=True)
        if shape is not None and shape != (height, width, 1 if colors == "Gray" else 3):
            return None
        is_reduced = at_least is not None and min(height, width) // (2 * max(at_least)) >= 2
        is_plain = colors in _COLORS and not any(marker in content for marker in _ORIENTATION_MARKERS)
        if height * width > max_pixels() or is_reduced or not is_plain:
            return None
        # strict: leave files that libjpeg-turbo warns about to Pillow, so that there is one rule for damaged files.
        return simplejpeg.decode_jpeg(content, _COLORS[colors], fastdct=False, fastupsample=False, strict=True)
    except (ValueError, MemoryError):
        return None


@cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
