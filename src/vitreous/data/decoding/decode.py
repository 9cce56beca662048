"""Image file, bytes, PIL image or array -> one upright 8-bit image, gray or RGB.

An image that does not decode completely raises DecodeError and never becomes a black or half-gray image. Color
profiles are ignored: published weights were trained without them, comparable libraries do not use them, and most
photos are sRGB anyway.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from vitreous.data.decoding.jpeg import decode_jpeg
from vitreous.errors import DecodeError

ImageLike = bytes | str | Path | Image.Image | NDArray[Any]
"""Encoded bytes, a path, a PIL image, or an array [height, width] or [height, width, 1 to 4 channels]."""

MAX_PIXELS = 178_956_970
"""Larger images are rejected; this is twice the size at which Pillow warns, and 512 MiB as RGB."""

BACKGROUND = "white"
"""Color behind transparent pixels."""

SEVERAL = " (first of several)"
"""Suffix of `Header.kind` for files with more than one frame or page."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths of cameras and scanners; 10, 12 and 14 bits are stored in files of 16 bits."""

_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_ORIENTATION_TAG = 0x0112
_TURN_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """Facts from an image's first bytes.

    Attributes:
        height: Height in px, after turning the image upright.
        width: Width in px, after turning the image upright.
        is_gray: True if the image has no color.
        kind: Format and Pillow mode, e.g. `JPEG CMYK` or, with more than one frame, `GIF P (first of several)`; empty
            for arrays. Comparing headers ignores it.
    """

    height: int
    width: int
    is_gray: bool
    kind: str = field(default="", compare=False)


def decode_image(
    image: ImageLike, *, in_chans: int | None = None, where: str = "", at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Decode an image: upright (EXIF), on a white background where transparent, in 8 bits; only the first frame.

    Args:
        image: The image to decode. A PIL image is not changed; the result is a new one.
        in_chans: 1 or 3; None: 1 for an image without color, else 3.
        where: Name of the image in error messages; by default its path.
        at_least: (height, width) in px that will be used. A JPEG file more than twice as large may then be decoded at
            a reduced size, but not below twice this size (5 times faster for photos of 12 megapixels).

    Returns:
        An image of mode `L` or `RGB`.

    Raises:
        DecodeError: Not an image, incomplete, damaged, over `MAX_PIXELS`, or with values whose range is unknown.
    """
    name = where or (str(image) if isinstance(image, str | Path) else "image")
    try:
        if isinstance(image, np.ndarray):
            return _with_channels(_from_array(image), in_chans)
        pixels = decode_jpeg(image, MAX_PIXELS, at_least) if isinstance(image, bytes) else None
        if pixels is not None:
            return _with_channels(_from_array(pixels), in_chans)
        with _pillow_warnings_ignored():
            if isinstance(image, Image.Image):
                return _with_channels(_upright(image.copy()), in_chans)
            with _open(image) as opened:
                if at_least is not None:
                    # EXIF data may still swap height and width, so request a square of the longer side.
                    opened.draft(None, (2 * max(at_least), 2 * max(at_least)))
                opened.load()
                return _with_channels(_upright(opened), in_chans)
    except Exception as error:  # Pillow's plugins raise many types of errors for damaged bytes
        raise DecodeError(f"{name}: {_reason(error, image)}") from error


def read_header(content: bytes, where: str) -> Header:
    """Read size and color of an encoded image without decoding it.

    Raises DecodeError, with `where` as the name, if Pillow cannot read it or it is over `MAX_PIXELS`.
    """
    try:
        with _pillow_warnings_ignored(), _open(content) as opened:
            width, height = opened.size
            if _orientation(opened) >= 5:
                width, height = height, width
            kind = f"{opened.format} {opened.mode}{SEVERAL if _is_several(opened) else ''}"
            return Header(height=height, width=width, is_gray=_is_gray(opened), kind=kind)
    except Exception as error:  # as in `decode_image`
        raise DecodeError(f"{where}: {_reason(error, content)}") from error


def reason_of(error: DecodeError, where: str) -> str:
    """Return the error's reason without the name of the image."""
    return str(error.args[0]).removeprefix(f"{where}: ")


def _open(image: bytes | str | Path) -> Image.Image:
    opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    width, height = opened.size
    if width * height > MAX_PIXELS:
        opened.close()
        raise ValueError(f"{width}x{height} px is over the limit of {MAX_PIXELS:,} px")
    return opened


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURN_UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if the EXIF data is damaged, because the pixels can still be fine."""
    try:
        # For a PNG, `image.getexif()` would decode the whole image; this call does not.
        orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:  # as in `decode_image`
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _is_several(image: Image.Image) -> bool:
    """Return True if more frames or pages follow; a phone's smaller copy of the same picture (MPO) does not count."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # as in `decode_image`
        return False


def _is_gray(image: Image.Image) -> bool:
    if image.mode != "P":
        return image.mode in _GRAY_MODES
    palette = np.asarray(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _with_channels(image: Image.Image, in_chans: int | None) -> Image.Image:
    """Convert an image of any mode to `L` or `RGB`."""
    is_gray = _is_gray(image)
    if image.mode[0] in "IF":
        image = _deep_to_eight_bits(image)
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, BACKGROUND)
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    mode = "L" if in_chans == 1 or (in_chans is None and is_gray) else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _deep_to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert modes I, I;16 and F to L, or to LA if the image declares one value as transparent."""
    values = np.asarray(image)
    gray = Image.fromarray(_eight_bits(values))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("LAB colors could not be converted")
    return converted


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and 2 <= array.shape[2] <= 4)):
        raise ValueError(f"array of shape {array.shape}; must be [height, width] or [height, width, 1 to 4 channels]")
    return Image.fromarray(np.ascontiguousarray(_eight_bits(array)))


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale to 0..255 from the smallest range that holds all values: 0..1 (floats only), or that of 8, 10, … 16 bits.

    The values decide, not the type: 16-bit files often hold 8-bit or 12-bit values, and scaling those from 16 bits
    would give a nearly black image.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 65535.0):
        raise ValueError(f"values from {low:g} to {high:g}; must lie in 0..1 (float) or 0..65535")
    maxima = [float(2**bits - 1) for bits in DEPTHS]
    top = 1.0 if high <= 1.0 and values.dtype.kind == "f" else min(value for value in maxima if high <= value)
    return np.rint(values.astype(np.float64) * (255.0 / top)).astype(np.uint8)


def _reason(error: Exception, image: ImageLike) -> str:
    if isinstance(image, bytes) and not image:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text or type(error).__name__


_ignoring_lock = threading.Lock()
_num_ignoring = 0
_outer_filters: "warnings.catch_warnings[None] | None" = None


@contextmanager
def _pillow_warnings_ignored() -> Iterator[None]:
    """Ignore Pillow's warnings about odd metadata; safe to use in several threads at once.

    `warnings.catch_warnings` is not thread-safe, so the first thread enters it and the last one leaves it.
    """
    global _num_ignoring, _outer_filters
    with _ignoring_lock:
        if _num_ignoring == 0:
            _outer_filters = warnings.catch_warnings()
            _outer_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        _num_ignoring += 1
    try:
        yield
    finally:
        with _ignoring_lock:
            _num_ignoring -= 1
            if _num_ignoring == 0 and _outer_filters is not None:
                _outer_filters.__exit__(None, None, None)
                _outer_filters = None
