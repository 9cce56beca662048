"""JPEG bytes -> their pixels by simplejpeg, where it is installed and gives exactly what Pillow gives, much sooner.

Both call libjpeg-turbo with the same settings. simplejpeg leaves out what Pillow does around it, which takes ten times
as long as the pixels of a 32 px image.
"""

from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

_START = b"\xff\xd8\xff"
_TURNED = (b"Exif\x00", b"rientation")
"""What stands in a file that says which side is up: as EXIF data, or in the words of XMP."""
_COLORS = {"YCbCr": "RGB", "Gray": "GRAY"}


def decode_jpeg(
    content: bytes,
    max_pixels: int,
    at_least: tuple[int, int] | None = None,
    shape: tuple[int, int, int] | None = None,
) -> NDArray[np.uint8] | None:
    """Decode a plain JPEG file; all others are Pillow's.

    Args:
        content: The file's bytes.
        max_pixels: Larger images are not decoded here.
        at_least: (height, width) in px that will be used: files that Pillow would decode at a reduced size are not
            decoded here, for the two reduce differently.
        shape: Images of another height, width and number of channels are not decoded here; None: of any.

    Returns:
        `[height, width, 1 or 3]`; None without simplejpeg, and for what is damaged, cut short, turned, CMYK or no JPEG.
    """
    simplejpeg = _simplejpeg()
    if simplejpeg is None or not content.startswith(_START):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content, strict=True)
        if shape is not None and shape != (height, width, 1 if colors == "Gray" else 3):
            return None
        is_reduced = at_least is not None and min(height, width) // (2 * max(at_least)) >= 2
        if height * width > max_pixels or colors not in _COLORS or is_reduced or any(w in content for w in _TURNED):
            return None
        # strict: what libjpeg-turbo only warns of is looked at by Pillow, so that both agree on what is damaged.
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
