"""Small contents -> image files, tar files and error messages for the tests of sources."""

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.sources import Source
from vitreous.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
"""Twelve different RGB images, 7 px wide and 9 high."""


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def tar(entries: Iterable[tuple[str, bytes]], mode: str = "w", format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    """Return the bytes of a tar file with these names and contents."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=format) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is created if necessary."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def check_pixels(source: Source, expected: Iterable[NDArray[np.uint8]]) -> None:
    """Fail unless the images of a source are exactly these."""
    for index, pixels in enumerate(expected):
        np.testing.assert_array_equal(np.asarray(source.image(index)), pixels)


def error_of(open_it: Callable[[], object]) -> str:
    """Return the message of the DataError that a call raises; fail unless it is a single line."""
    with pytest.raises(DataError) as caught:
        open_it()
    assert "\n" not in str(caught.value)
    return str(caught.value)
