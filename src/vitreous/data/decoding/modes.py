"""PIL image of any mode, or array -> 8 bits: gray, RGB or several channels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vitreous.data.decoding.arrays import channels_last
from vitreous.data.decoding.depth import Scale

BACKGROUND = "white"
"""Color behind transparent pixels."""

_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})


def with_channels(image: Image.Image, in_chans: int | None) -> Image.Image:
    """Convert an image of any mode of 8 bits to `L` or `RGB`."""
    without_color = is_gray(image)
    if image.mode == "LAB":
        image = _lab_to_rgb(image)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, BACKGROUND)
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    mode = "L" if in_chans == 1 or (in_chans is None and without_color) else "RGB"
    return image if image.mode == mode else image.convert(mode)


def to_eight_bits(image: Image.Image, scale: Scale) -> Image.Image:
    """Convert modes I, I;16 and F to L, or to LA if the image declares one value as transparent; others stay."""
    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image)
    if image.mode == "I" and values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max:
        values = values.astype(np.uint16)  # what Pillow means by this mode: 16 bits
    gray = Image.fromarray(scale.eight_bits(values))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray


def from_array(array: NDArray[Any], in_chans: int | None, scale: Scale) -> Image.Image | NDArray[np.uint8]:
    """Convert an array to an image of mode L, LA, RGB or RGBA, or to `[height, width, channels]` of 8 bits."""
    array = channels_last(array, in_chans)
    channels = 1 if array.ndim == 2 else array.shape[2]
    is_deep = array.dtype.kind != "b" and array.dtype != np.uint8
    with_alpha = has_alpha(channels, in_chans, is_deep)
    pixels = np.ascontiguousarray(scale.eight_bits(array, has_alpha=with_alpha))
    return Image.fromarray(pixels) if channels in (1, 3) or with_alpha else pixels


def is_gray(image: Image.Image) -> bool:
    """Return True if the mode, or the palette, has no color."""
    if image.mode != "P":
        return image.mode in _GRAY_MODES
    palette = np.asarray(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def has_alpha(channels: int, in_chans: int | None, is_deep: bool) -> bool:
    """Return True if the last channel is opacity: in pictures, but not if channels are asked for or values are deep."""
    return channels in (2, 4) and (in_chans in (1, 3) or (in_chans is None and not is_deep))


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("LAB colors could not be converted")
    return converted
