"""Damaged files that other readers turn into black or wrong pixels are refused, or give the right colors."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from vitreous.data.decoding.decode import decode_channels, decode_image
from vitreous.errors import DecodeError

GRAY = np.random.default_rng(0).integers(0, 256, (24, 17), dtype=np.uint8)


def tiff_with(content: bytes, tag: int, value: int) -> bytes:
    """Return a little-endian TIFF file with another value of one tag."""
    changed, directory = bytearray(content), int.from_bytes(content[4:8], "little")
    for number in range(int.from_bytes(content[directory : directory + 2], "little")):
        place = directory + 2 + 12 * number
        if int.from_bytes(content[place : place + 2], "little") == tag:
            changed[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
            return bytes(changed)
    raise LookupError(tag)


def reason(content: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_image(content, where="x")
    return str(caught.value)


def test_tiff_that_is_higher_than_its_strips_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(GRAY).save(file, "TIFF")
    np.testing.assert_array_equal(np.asarray(decode_image(file.getvalue())), GRAY)
    damaged = tiff_with(tiff_with(file.getvalue(), 257, 9000), 278, 24)
    assert np.asarray(Image.open(io.BytesIO(damaged)))[24:].max() == 0
    assert reason(damaged) == "x: truncated: its strips or tiles do not cover the image"


@pytest.mark.parametrize("channels", [5, 7])
def test_tiff_without_its_pixels_is_refused(channels: int) -> None:
    file, values = io.BytesIO(), np.repeat(GRAY[:, :, None], channels, axis=2)
    options = {"planarconfig": "contig", "compression": "zlib", "rowsperstrip": 6}
    tifffile.imwrite(file, values, photometric="minisblack", **options)
    damaged = tiff_with(file.getvalue(), 279, 0)
    assert reason(damaged) == "x: truncated: a TIFF page without its pixels"


def test_tiff_that_does_not_say_how_long_its_pixels_are_is_read() -> None:
    file, values = io.BytesIO(), np.repeat(GRAY[:, :, None], 5, axis=2)
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(decode_channels(tiff_with(file.getvalue(), 279, 0), 5), values)


def test_tiff_whose_values_are_inverted_is_refused_unless_pillow_reads_it() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.repeat(GRAY[:, :, None], 5, axis=2), photometric="miniswhite", planarconfig="contig")
    assert "a TIFF page of the kind MINISWHITE" in reason(file.getvalue())


def test_gif_with_a_gray_palette_and_a_first_frame_with_colors_has_the_colors() -> None:
    colors = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    image, file = Image.fromarray(GRAY, "L"), io.BytesIO()
    image.putpalette(colors.tobytes())
    image.save(file, "GIF", optimize=False)
    content, start = bytearray(file.getvalue()), 13 + 768
    gray, own = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1).tobytes(), bytes(content[13:start])
    place = content.index(b",", start) + 9
    content[place] |= 0x87
    content[place + 1 : place + 1] = own
    content[13:start] = gray
    found = decode_image(bytes(content))
    assert found.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(found), np.asarray(Image.open(file).convert("RGB")))
