"""Image file, bytes, PIL image or array -> one upright 8-bit image, gray or RGB.

What does not decode completely is a DecodeError, never a black or half-gray image. Colour profiles are not applied:
no published weights and none of the peers were trained with them, and most photos are in sRGB as it is.
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
"""Larger images are refused (twice Pillow's own warning threshold): 512 MiB as RGB."""

BACKGROUND = "white"
"""What shows through transparent pixels."""

SEVERAL = " (first of several)"
"""How `Header.kind` ends where frames or pages follow."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners have; files of 10, 12 and 14 bits are kept as if they had 16."""

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
    """What an image's first bytes say: upright height and width in px, whether it has no colour, and its kind of file.

    `kind` is the format and Pillow's mode, e.g. `JPEG CMYK` or, where the file holds more, `GIF P (first of several)`;
    empty where there is no file. It makes no image another.
    """

    height: int
    width: int
    is_gray: bool
    kind: str = field(default="", compare=False)


def decode_image(
    image: ImageLike, *, in_chans: int | None = None, where: str = "", at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Decode, turn upright (EXIF), lay over white where transparent, scale to 8 bits. Animations give the first frame.

    Args:
        image: What to decode. A PIL image stays as it is; the result is another one.
        in_chans: 1 or 3; None: 1 for an image without colour, else 3.
        where: What to call the image in an error; a path speaks for itself.
        at_least: (height, width) in px that will be used: a JPEG file more than twice as large may be decoded at a
            reduced size (×5 faster on 12-megapixel photos), never below twice this size.

    Returns:
        An image of mode `L` or `RGB`.

    Raises:
        DecodeError: Not an image, incomplete, damaged, over `MAX_PIXELS`, or of values without a known scale.
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
                    # The side that is up is not known before the EXIF data is: ask for a square of the longer side.
                    opened.draft(None, (2 * max(at_least), 2 * max(at_least)))
                opened.load()
                return _with_channels(_upright(opened), in_chans)
    except Exception as error:  # on damaged bytes Pillow's plugins raise whatever they happen to trip over
        raise DecodeError(f"{name}: {_reason(error, image)}") from error


def read_header(content: bytes, where: str) -> Header:
    """Size and colour of an encoded image, from its header alone.

    Args:
        content: The file's bytes.
        where: What to call it in an error.

    Returns:
        The header, with EXIF orientation taken into account.

    Raises:
        DecodeError: Not an image that Pillow knows, or over `MAX_PIXELS`.
    """
    try:
        with _pillow_warnings_ignored(), _open(content) as opened:
            width, height = opened.size
            if _orientation(opened) >= 5:
                width, height = height, width
            kind = f"{opened.format} {opened.mode}{SEVERAL if _is_several(opened) else ''}"
            return Header(height=height, width=width, is_gray=_is_gray(opened), kind=kind)
    except Exception as error:  # as in decode_image
        raise DecodeError(f"{where}: {_reason(error, content)}") from error


def reason_of(error: DecodeError, where: str) -> str:
    """The reason alone, where a list already says which file."""
    return str(error).removeprefix(f"{where}: ")


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
    """The EXIF orientation, 1 to 8; 1 where the EXIF data is damaged, for the pixels can still be right."""
    try:
        # Not image.getexif(): for a PNG that decodes the whole image, and the header is read without.
        orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:  # as in decode_image
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _is_several(image: Image.Image) -> bool:
    """Whether frames or pages follow; a phone's second, smaller picture of the same (MPO) is not told."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # as in decode_image
        return False


def _is_gray(image: Image.Image) -> bool:
    if image.mode != "P":
        return image.mode in _GRAY_MODES
    palette = np.asarray(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _with_channels(image: Image.Image, in_chans: int | None) -> Image.Image:
    """Any mode -> `L` or `RGB`."""
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
    """Modes I, I;16…, F -> L, or LA where one value is declared transparent."""
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
        raise ValueError("LAB colours that could not be converted")
    return converted


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and 2 <= array.shape[2] <= 4)):
        raise ValueError(f"array of shape {array.shape}; must be [height, width] or [height, width, 1 to 4 channels]")
    return Image.fromarray(np.ascontiguousarray(_eight_bits(array)))


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale to 0..255 by the smallest range that holds all values: 0..1 (floats only), or that of 8, 10, … 16 bits.

    The values decide, not the type: 8-bit values come in 16-bit files too, and 12-bit values nearly always do; neither
    must turn into a black image.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 65535.0):
        raise ValueError(f"values from {low:g} to {high:g}; must lie in 0..1 (float) or 0..65535")
    tops = [float(2**bits - 1) for bits in DEPTHS]
    top = 1.0 if high <= 1.0 and values.dtype.kind == "f" else min(top for top in tops if high <= top)
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
    """Pillow's remarks on odd metadata are not the user's concern.

    `warnings.catch_warnings` alone is not safe between threads: the first to enter sets it, the last to leave ends it.
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
