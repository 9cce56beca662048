import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.decoding.decode import Header, decode_image, read_header
from vitreous.data.decoding.depth import Clipped, Scale
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import ClippedWarning, DecodeError

DEEP = np.random.default_rng(0).integers(0, 65536, (7, 10, 4), dtype=np.uint16)
BASE = np.random.default_rng(1).uniform(0.2, 1.0, (24, 20))
COLORS = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's number for gray, gray with opacity, RGB and RGBA, by the number of channels."""


def png16(values: NDArray[Any]) -> bytes:
    """Write a PNG file of 16 bits per channel; Pillow writes only gray ones."""
    values = np.atleast_3d(values)
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, COLORS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    stream = BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    return np.rint(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def mean(image: Any, **options: Any) -> float:
    return float(np.asarray(decode_image(image, **options)).mean())


@pytest.mark.parametrize("peak", [200, 1010, 4080, 60_000])
def test_three_percent_more_exposure_is_three_percent_brighter_whatever_the_level(peak: float) -> None:
    scale = Scale((0.0, 65535.0)) if peak > 5000 else Scale((0.0, 4095.0))
    darker, brighter = (np.rint(BASE * peak * gain).astype(np.uint16) for gain in (0.97, 1.0))
    for form in (lambda values: values, png16, lambda values: png16(np.dstack([values] * 3)), tiff):
        ratio = mean(form(brighter), scale=scale) / mean(form(darker), scale=scale)
        assert ratio == pytest.approx(1 / 0.97, rel=0.06 if peak == 200 else 0.01)


def test_images_without_a_data_set_are_scaled_by_their_type_and_not_by_their_own_maximum() -> None:
    for top, dtype in ((1010, np.uint16), (1040, np.uint16), (4200, np.uint16), (65535, np.uint16)):
        values = np.rint(BASE / BASE.max() * top).astype(dtype)
        np.testing.assert_array_equal(np.asarray(decode_image(values)), scaled(values, 0, 65535))
    for top in (0.3, 1.0, 1.01):
        values = (BASE / BASE.max() * top).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(decode_image(values)), scaled(values, 0, 1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_sixteen_bits_has_all_its_bits(channels: int) -> None:
    values, scale = DEEP[:, :, :channels].squeeze(), Scale((0.0, 4095.0))
    found = np.asarray(decode_image(png16(values), scale=scale), dtype=np.float64)
    color = scaled(values if channels in (1, 3) else values[..., :-1], 0, 4095).squeeze().astype(np.float64)
    if channels in (2, 4):
        alpha = scaled(values[..., -1], 0, 65535) / 255.0
        alpha = alpha if channels == 2 else alpha[..., None]
        color = color * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(found, color, atol=1.0)
    assert read_header(png16(values), "x") == Header(7, 10, channels < 3, is_deep=True)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_color_tiff_of_sixteen_bits_has_all_its_bits(order: Any, planes: str, compression: str | None) -> None:
    values = DEEP[:, :, :3]
    stored = values if planes == "contig" else np.moveaxis(values, 2, 0)
    content = tiff(stored, photometric="rgb", byteorder=order, planarconfig=planes, compression=compression)
    found = np.asarray(decode_image(content, scale=Scale((100.0, 40_000.0))))
    np.testing.assert_array_equal(found, scaled(values, 100, 40_000))
    assert read_header(content, "x") == Header(7, 10, False, is_deep=True)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32"])
def test_gray_tiff_of_any_type_uses_the_given_range(dtype: str) -> None:
    values = (BASE * 200).astype(dtype)
    found = np.asarray(decode_image(tiff(values), scale=Scale((50.0, 150.0))), dtype=np.float64)
    np.testing.assert_allclose(found, scaled(values, 50, 150), atol=1.0)  # halves may be rounded either way


@given(
    limits=st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    values=st.lists(st.floats(-2e6, 2e6, width=32), min_size=2, max_size=30),
)
def test_scale_never_makes_a_higher_value_darker_and_counts_what_it_clips(
    limits: tuple[float, float], values: list[float]
) -> None:
    scale, row = Scale(limits), np.sort(np.array([values], dtype=np.float32))
    found = scale.eight_bits(row)[0].astype(int)
    assert (np.diff(found) >= 0).all()
    beyond = sum(not limits[0] <= value <= limits[1] for value in row[0].astype(float))
    assert scale.clipped.take() == Clipped(int(beyond > 0), beyond, len(values))


def test_eight_bit_images_do_not_depend_on_the_range() -> None:
    pixels = DEEP[:, :, :3].astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(decode_image(pixels, scale=Scale((0.0, 4095.0)))), pixels)


def test_rows_of_a_large_image_are_scaled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Scale((0.0, 5000.0)).eight_bits(DEEP)
    monkeypatch.setattr("vitreous.data.decoding.depth._VALUES_AT_ONCE", 90)
    scale = Scale((0.0, 5000.0))
    np.testing.assert_array_equal(scale.eight_bits(DEEP), whole)
    assert scale.clipped.take() == Clipped(1, (DEEP > 5000).sum(), DEEP.size)


def test_clipped_values_become_one_warning_and_are_forgotten() -> None:
    preprocess = Preprocess((7, 10), 1, value_range=(0.0, 4095.0))
    for values in (np.full((7, 10), 4095, np.uint16), np.full((7, 10), 5000, np.uint16)):
        preprocess.pixels(values)
    with pytest.warns(ClippedWarning, match=r"^1 image with values beyond data.value_range=0,4095: 50% of the values"):
        preprocess.scale.warn_of_clipped()
    preprocess.scale.warn_of_clipped()


def test_settings_of_earlier_versions_scale_each_image_as_they_did() -> None:
    old = Preprocess.from_dict({"img_size": [24, 20], "in_chans": 1})
    for top in (255, 1023, 4095, 16383, 65535):
        values = np.rint(BASE / BASE.max() * top).astype(np.uint16)
        np.testing.assert_array_equal(old.pixels(values)[0].numpy(), scaled(values, 0, top))


def test_range_survives_json_and_is_checked() -> None:
    preprocess = Preprocess((5, 7), 2, value_range=(0.0, 1.0, -5.0, 5.0))
    assert Preprocess.from_dict(preprocess.as_dict()) == preprocess
    for wrong, message in (
        ((1.0,), "preprocess.value_range=1: must have 2 numbers, or 4 for 2 channels"),
        ((3.0, 1.0), "preprocess.value_range=3,1: 3 is not below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Preprocess((5, 7), 2, value_range=wrong)


def test_transparent_value_of_a_deep_image_becomes_white() -> None:
    values = DEEP[:, :, 0].copy()
    values[3, 4] = 1000
    stream = BytesIO()
    Image.fromarray(values).save(stream, "PNG", transparency=1000)
    expected = scaled(values, 0, 65535)
    expected[values == 1000] = 255
    np.testing.assert_array_equal(np.asarray(decode_image(stream.getvalue())), expected)


@pytest.mark.parametrize("width", [3, 5])
def test_range_of_each_channel_does_not_suit_a_gray_image_of_any_width(width: int) -> None:
    scale = Scale((0.0, 100.0, 0.0, 200.0, 0.0, 300.0))
    with pytest.raises(DecodeError, match=r"^image: 1 channel, but data.value_range is for 3$"):
        decode_image(DEEP[:, :width, 0], scale=scale)


def test_value_that_is_not_finite_is_an_error() -> None:
    values = BASE.copy()
    values[2, 3] = np.inf
    with pytest.raises(DecodeError, match=r"values from 0\.2.* to inf; must be finite"):
        decode_image(values, scale=Scale((0.0, 1.0)))
