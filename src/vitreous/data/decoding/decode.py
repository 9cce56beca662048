"""Image file, bytes, PIL image or array -> one upright 8-bit image: gray, RGB, or with up to 16 channels.

An image that does not decode completely raises DecodeError and never becomes a black or half-gray image. Color
profiles are ignored: published weights were trained without them, comparable libraries do not use them, and most
photos are sRGB anyway. Values of more than 8 bits are scaled by a `Scale`, which belongs to the data set.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vitreous.data.decoding.arrays import is_array_file, is_tiff, read_array, read_tiff, tiff_shape
from vitreous.data.decoding.deep import is_deep_color, is_deep_gray, read_deep_color
from vitreous.data.decoding.depth import BY_TYPE, Scale
from vitreous.data.decoding.jpeg import decode_jpeg
from vitreous.data.decoding.limits import HUGE_PIXELS, VARIABLE, check_pixels, max_pixels
from vitreous.data.decoding.modes import from_array, has_alpha, is_gray, to_eight_bits, with_channels
from vitreous.data.decoding.quiet import quiet_pillow
from vitreous.errors import ConfigError, DecodeError
from vitreous.wording import plural

ImageLike = bytes | str | Path | Image.Image | NDArray[Any]
"""Encoded bytes, a path, a PIL image, or an array [height, width] or [height, width, 1 to 16 channels]."""

SEVERAL = " (first of several)"
"""Suffix of `Header.kind` for files with more than one frame or page."""

_MOST_FILE_BYTES = 1 << 30
_ORIENTATION_TAG = 0x0112
_PLANAR_TAG, _BITS_TAG, _SAMPLES_TAG, _PHOTOMETRIC_TAG, _RGB = 284, 258, 277, 262, 2
_TURN_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK")
_huge_lock = threading.Lock()


@dataclass(frozen=True)
class Header:
    """Facts from an image's first bytes.

    Height and width in px are those of the upright image. `kind` is the format and the mode of Pillow, e.g. `JPEG CMYK`
    or, with more than one frame, `GIF P (first of several)`; it is empty for arrays, and comparing headers ignores it.
    `bands` is the number of channels of an image that is neither gray nor color, with opacity or without; 0 for others.
    Values of a deep image have more than 8 bits.
    """

    height: int
    width: int
    is_gray: bool
    kind: str = field(default="", compare=False)
    bands: int = 0
    is_deep: bool = False

    @property
    def channels(self) -> int:
        """Number of channels: 1 for gray and 3 for color, both without opacity, or the number of bands."""
        return self.bands or (1 if self.is_gray else 3)


def decode_image(
    image: ImageLike,
    *,
    in_chans: int | None = None,
    where: str = "",
    at_least: tuple[int, int] | None = None,
    scale: Scale = BY_TYPE,
) -> Image.Image:
    """Decode an image: upright (EXIF), on a white background where transparent, in 8 bits; only the first frame.

    Args:
        image: The image to decode. A PIL image is not changed; the result is a new one.
        in_chans: 1 or 3; None: 1 for an image without color, else 3. An image with other channels then shows its first
            three, or the first of two.
        where: Name of the image in error messages; by default its path.
        at_least: (height, width) in px that will be used. A JPEG file more than twice as large may then be decoded at
            a reduced size, but not below twice this size (5 times faster for photos of 12 megapixels).
        scale: What becomes black and white in an image of more than 8 bits.

    Returns:
        An image of mode `L` or `RGB`.

    Raises:
        DecodeError: Not an image, incomplete, damaged, over `max_pixels()`, with values whose range is unknown, or with
            other channels than `in_chans`.
    """
    with _named(image, where):
        found = _decode(image, in_chans, at_least, scale)
        if isinstance(found, np.ndarray):
            if in_chans is not None:
                raise ValueError(_other_channels(found.shape[2], in_chans))
            found = Image.fromarray(np.ascontiguousarray(found[:, :, : 3 if found.shape[2] > 2 else 1].squeeze()))
        return with_channels(found, in_chans)


def decode_channels(image: ImageLike, in_chans: int, where: str = "", scale: Scale = BY_TYPE) -> NDArray[np.uint8]:
    """Decode an image that is neither gray nor color; the channels are taken as they are stored, without opacity.

    There are 2 or 4 to 16 channels, so the result is `[height, width, in_chans]`. Raises DecodeError as `decode_image`
    does.
    """
    with _named(image, where):
        found = _decode(image, in_chans, None, scale)
        values = np.atleast_3d(np.asarray(found))
        if values.shape[2] != in_chans:
            raise ValueError(_other_channels(values.shape[2], in_chans))
        return values


def read_header(content: bytes, where: str) -> Header:
    """Read size and color of an encoded image without decoding it.

    Raises DecodeError, with `where` as the name, if it cannot be read or is over `max_pixels()`.
    """
    with _named(content, where):
        if is_array_file(content):
            values = read_array(content)
            return header_of(values.shape, values.dtype, f"array {values.dtype}")
        with quiet_pillow():
            if _needs_tifffile(content):
                shape, dtype = tiff_shape(content)
                return header_of(shape, dtype, f"TIFF {dtype}")
            with _open(content) as opened:
                width, height = opened.size
                if _orientation(opened) >= 5 and opened.format != "TIFF":  # Pillow gives the upright size of TIFF files
                    width, height = height, width
                kind = f"{opened.format} {opened.mode}{SEVERAL if _is_several(opened) else ''}"
                is_deep = opened.mode[0] in "IF" or is_deep_color(opened)
                return Header(height, width, is_gray(opened) or is_deep_gray(opened), kind, is_deep=is_deep)


def header_of(shape: tuple[int, ...], dtype: np.dtype[Any], kind: str = "") -> Header:
    """Return the header of an array; 2 or 4 channels of 8 bits are gray or color with opacity."""
    channels, is_deep = 1 if len(shape) == 2 else shape[2], dtype.kind != "b" and dtype != np.uint8
    with_alpha = has_alpha(channels, None, is_deep)
    bands = 0 if channels in (1, 3) or with_alpha else channels
    return Header(shape[0], shape[1], channels == 1 or (channels == 2 and with_alpha), kind, bands, is_deep)


def reason_of(error: DecodeError, where: str) -> str:
    """Return the error's reason without the name of the image."""
    return str(error.args[0]).removeprefix(f"{where}: ")


@contextmanager
def _named(image: ImageLike, where: str) -> Iterator[None]:
    """Raise DecodeError, with the name of the image, for any error inside the block."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # Pillow's plugins raise many types of errors for damaged bytes
        name = where or (str(image) if isinstance(image, str | Path) else "image")
        raise DecodeError(f"{name}: {_reason(error, image)}") from error


def _decode(
    image: ImageLike, in_chans: int | None, at_least: tuple[int, int] | None, scale: Scale
) -> Image.Image | NDArray[np.uint8]:
    """Return an upright image of a mode of 8 bits or `[height, width, channels]`, uint8."""
    if isinstance(image, str | Path) and Path(image).is_file() and Path(image).stat().st_size <= _MOST_FILE_BYTES:
        image = Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return from_array(image, in_chans, scale)
    if isinstance(image, bytes):
        pixels = decode_jpeg(image, at_least)
        if pixels is not None or is_array_file(image):
            return from_array(read_array(image) if pixels is None else pixels, in_chans, scale)
    with quiet_pillow():
        if isinstance(image, Image.Image):
            return to_eight_bits(_turned(image.copy(), _orientation(image)), scale)
        wants_samples = isinstance(image, bytes) and is_tiff(image) and in_chans not in (None, 1, 3)
        if isinstance(image, bytes) and (wants_samples or _needs_tifffile(image)):
            return from_array(read_tiff(image, with_all=wants_samples), in_chans, scale)
        with _open(image) as opened:
            count = opened.width * opened.height
            with _huge_lock if count > HUGE_PIXELS else nullcontext():
                return _load(opened, image, at_least, scale)


def _load(
    opened: Image.Image, image: bytes | str | Path, at_least: tuple[int, int] | None, scale: Scale
) -> Image.Image:
    """Load the pixels of an opened file, and turn them upright. Pillow itself turns TIFF files when it loads them."""
    if is_deep_color(opened):
        with _open(image) as again:
            values = read_deep_color(opened, again)
        deep = Image.fromarray(scale.eight_bits(values, has_alpha=values.shape[2] != 3))
        transparent = opened.info.get("transparency")
        if isinstance(transparent, tuple) and deep.mode == "RGB":
            deep.putalpha(Image.fromarray(np.where((values == transparent).all(axis=2), 0, 255).astype(np.uint8)))
        return _turned(deep, _orientation(opened))
    if at_least is not None:
        # EXIF data may still swap height and width, so request a square of the longer side.
        opened.draft(None, (2 * max(at_least), 2 * max(at_least)))
    covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in getattr(opened, "tile", ()))
    if opened.format == "TIFF" and covered < opened.width * opened.height:  # Pillow would leave the rest black
        raise ValueError("truncated: its strips or tiles do not cover the image")
    opened.load()
    if opened.im.mode != opened.mode:  # a GIF whose first frame has a palette of its own; a copy has the right mode
        opened = opened.copy()
    if at_least is not None and opened.width * opened.height > 2 * HUGE_PIXELS and opened.mode in _REDUCIBLE:
        # Every later step would copy the whole image once more.
        return _turned(opened.reduce(min(opened.size) // (2 * max(at_least)) or 1), _orientation(opened))
    return to_eight_bits(_turned(opened, _orientation(opened)), scale)


def _open(image: bytes | str | Path) -> Image.Image:
    opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    width, height = opened.size
    try:
        check_pixels(width * height, f"{width}x{height} px")
    except ValueError:
        opened.close()
        raise
    return opened


def _needs_tifffile(content: bytes) -> bool:
    """Return True for a TIFF file that Pillow refuses, or of which it misreads separate planes or drops channels."""
    if not is_tiff(content):
        return False
    try:
        with _open(content) as opened:
            tags = getattr(opened, "tag_v2", {})
            is_deep_planar = tags.get(_PLANAR_TAG) == 2 and max(tags.get(_BITS_TAG, (8,))) > 8
            is_color = tags.get(_PHOTOMETRIC_TAG) == _RGB
            return is_deep_planar or (tags.get(_SAMPLES_TAG, 1) > len(opened.getbands()) and not is_color)
    except UnidentifiedImageError:
        return True


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURN_UPRIGHT.get(orientation)
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


def _other_channels(found: int, in_chans: int) -> str:
    return f"has {plural(found, 'channel')}, where the model takes {in_chans}; use images with {in_chans}"


def _reason(error: Exception, image: ImageLike) -> str:
    if isinstance(image, bytes) and not image:
        return "empty file"
    if isinstance(error, Image.DecompressionBombError):
        return f"is over the limit of {max_pixels():,} px; set {VARIABLE} to allow more"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text or type(error).__name__
