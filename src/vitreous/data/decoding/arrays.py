"""Bytes of a .npy, .npz or multi-band TIFF file -> values, `[height, width]` or `[height, width, channels]`.

Nothing is unpickled, and the size that a header declares is checked before memory is allocated.
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.limits import check_pixels

MOST_CHANNELS = 16

_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_MOST_BYTES_PER_VALUE = 8
_RGB = 2
_NEEDS_CONVERSION = ("MINISWHITE", "PALETTE", "YCBCR", "CIELAB", "ICCLAB", "ITULAB")
"""What the values of a TIFF file can mean so that they are neither gray levels nor channels as they are stored."""


def is_array_file(content: bytes) -> bool:
    """Return True for the first bytes of a .npy or .npz file."""
    return content.startswith((_NPY, _ZIP))


def is_tiff(content: bytes) -> bool:
    """Return True for the first bytes of a TIFF file."""
    return content.startswith(_TIFF)


def read_array(content: bytes) -> NDArray[Any]:
    """Read the only array of a .npy or .npz file, channels last. Raises ValueError if it is not an image."""
    if content.startswith(_ZIP):
        content = _unzipped(content)
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"a .npy file of version {version[0]}.{version[1]}; must be 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    _check_dtype(dtype)
    check_values(shape)
    if len(content) - stream.tell() < prod(shape) * dtype.itemsize:
        raise ValueError(f"truncated: an array of shape {shape} needs {prod(shape) * dtype.itemsize:,} bytes")
    values = np.frombuffer(content, dtype, prod(shape), stream.tell())
    return channels_last(values.reshape(shape, order="F" if is_fortran else "C"))


def read_tiff(content: bytes, *, with_all: bool) -> NDArray[Any]:
    """Read the samples of the first page of a TIFF file. Raises ValueError if tifffile is missing or cannot read it.

    `with_all` keeps samples of a color image beyond red, green and blue, whatever they are.
    """
    with _page(content) as page:
        values = page.asarray()
        values = np.moveaxis(values, 0, 2) if page.axes == "SYX" else values
        return values if with_all or page.photometric != _RGB else values[:, :, :3]


def tiff_shape(content: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape, channels last, and the type of the first page of a TIFF file. Raises as `read_tiff`."""
    with _page(content) as page:
        height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
        if page.photometric == _RGB:
            channels = 3
        return ((height, width) if channels == 1 else (height, width, channels)), page.dtype


def channels_last(array: NDArray[Any], in_chans: int | None = None) -> NDArray[Any]:
    """Return an image with its channels, 1 to `MOST_CHANNELS`, on the last axis; a single one has no axis.

    An array is taken to be `[channels, height, width]` if that gives `in_chans` channels and the other order does not.
    Without `in_chans`, the axis decides that is short or makes the image square: `[3, 8, 9]` and `[13, 8, 8]` have
    their channels first, `[8, 8, 13]` last. Raises ValueError if shape or type is not that of an image.
    """
    _check_dtype(array.dtype)
    if array.ndim == 3:
        first, middle, last = array.shape
        if first == in_chans != last or (in_chans is None and _has_channels_first(first, middle, last)):
            array = np.moveaxis(array, 0, 2)
        if array.shape[2] == 1:
            array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and 2 <= array.shape[2] <= MOST_CHANNELS)):
        raise ValueError(
            f"array of shape {array.shape}; must be [height, width] or [height, width, 1 to {MOST_CHANNELS} channels]"
        )
    return array


def check_values(shape: tuple[int, ...]) -> None:
    """Raise ValueError if an array has more values than an RGB image at the pixel limit."""
    check_pixels(prod(shape) / (1 if len(shape) == 2 else 3), f"an array of {prod(shape):,} values")


def _has_channels_first(first: int, middle: int, last: int) -> bool:
    if first <= 4 < last:
        return True
    if first > MOST_CHANNELS or last <= 4:
        return False
    return last > MOST_CHANNELS or (middle == last != first)


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "buif" or dtype.itemsize > _MOST_BYTES_PER_VALUE:
        raise ValueError(f"values of type {dtype}; must be numbers of at most 64 bits")


def _unzipped(content: bytes) -> bytes:
    """Return the only member of a .npz file; its declared size is checked first."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if len(members) != 1 or not members[0].filename.endswith(".npy"):
            raise ValueError(f"a .npz file with {len(members)} arrays; must have exactly one, the image")
        check_values((members[0].file_size // _MOST_BYTES_PER_VALUE,))
        return archive.read(members[0])


@contextmanager
def _page(content: bytes) -> Iterator[Any]:
    """Open the first page of a TIFF file."""
    try:
        import tifffile
    except ImportError as error:
        raise ValueError("a TIFF file that needs the package tifffile; `pip install 'vitreous[tiff]'`") from error
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages[0]
        if page.axes not in ("YX", "YXS", "SYX"):
            raise ValueError(f"a TIFF page with axes {page.axes}; must be height, width and channels")
        _check_dtype(page.dtype)
        check_values(tuple(page.shape))
        meaning = getattr(page.photometric, "name", "")
        if meaning in _NEEDS_CONVERSION:
            raise ValueError(f"a TIFF page of the kind {meaning} that Pillow cannot read; save it as gray or RGB")
        # tifffile reads zeros where nothing is stored. That is right for some empty tiles, which have no place.
        pairs = zip_longest(page.dataoffsets, page.databytecounts, fillvalue=0)
        missing = [start for start, size in pairs if not size]
        if not page.is_contiguous and (any(missing) or len(missing) == len(page.dataoffsets)):
            raise ValueError("truncated: a TIFF page without its pixels")
        yield page
