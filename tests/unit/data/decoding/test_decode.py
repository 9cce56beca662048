import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, features

from vitreous.data.decoding import decode
from vitreous.data.decoding.decode import Header, decode_image, read_header, reason_of
from vitreous.errors import ConfigError, DecodeError


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PHOTO = noise(0, 7, 10, 3)
GRAY = noise(1, 7, 10)
SMOOTH = np.asarray(Image.fromarray(noise(3, 6, 8, 3)).resize((80, 60), Image.Resampling.BICUBIC))
needs_webp = pytest.mark.skipif(not features.check("webp"), reason="this Pillow cannot write WebP")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_keep_their_pixels(kind: str) -> None:
    image = decode_image(encoded(Image.fromarray(PHOTO), kind))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), PHOTO)


def test_path_bytes_image_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "ein Bild mit Ü.png"
    Image.fromarray(PHOTO).save(path)
    for form in (path, str(path), path.read_bytes(), Image.fromarray(PHOTO), PHOTO):
        np.testing.assert_array_equal(np.asarray(decode_image(form)), PHOTO)


def test_number_of_channels_is_that_of_the_image_unless_given() -> None:
    assert [decode_image(a).mode for a in (PHOTO, GRAY, GRAY[:, :, None])] == ["RGB", "L", "L"]
    np.testing.assert_array_equal(np.asarray(decode_image(GRAY, in_chans=3)), np.stack([GRAY] * 3, axis=2))
    luma = (PHOTO.astype(np.float64) @ [0.299, 0.587, 0.114]).astype(np.float64)
    np.testing.assert_allclose(np.asarray(decode_image(PHOTO, in_chans=1)), luma, atol=1.0)


UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", pytest.param("WEBP", marks=needs_webp)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_image_and_header_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(Image.fromarray(PHOTO), kind, exif=exif.tobytes(), **options)
    expected = UPRIGHT[orientation](np.asarray(decode_image(encoded(Image.fromarray(PHOTO), kind, **options))))
    np.testing.assert_allclose(np.asarray(decode_image(content)), expected, atol=1.0 if kind == "JPEG" else 0.0)
    if kind != "JPEG":
        np.testing.assert_array_equal(expected, UPRIGHT[orientation](PHOTO))
    assert read_header(content, "x") == Header(height=expected.shape[0], width=expected.shape[1], is_gray=False)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_deep_images_is_that_of_pillow(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 100
    content = encoded(Image.fromarray(deep), kind, exif=exif.tobytes())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))).astype(float)
    found = np.asarray(decode_image(content)).astype(float)
    assert found.shape == expected.shape
    assert np.abs(found - expected / 65535 * 255).max() <= 1
    header = read_header(content, "x")
    assert (header.height, header.width) == expected.shape


def test_transparent_pixels_become_white() -> None:
    rgba = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    rgba[2, 3, 3], rgba[4, 5] = 0, (100, 0, 0, 51)
    expected = PHOTO.copy()
    expected[2, 3], expected[4, 5] = 255, (224, 204, 204)
    for form in (rgba, encoded(Image.fromarray(rgba), "PNG")):
        np.testing.assert_array_equal(np.asarray(decode_image(form)), expected)


def test_gray_image_with_transparency_stays_gray() -> None:
    la = np.dstack([GRAY, np.full(GRAY.shape, 255, np.uint8)])
    la[1, 2, 1] = 0
    expected = GRAY.copy()
    expected[1, 2] = 255
    image = decode_image(encoded(Image.fromarray(la), "PNG"))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_declared_transparent_value_becomes_white() -> None:
    deep = GRAY.astype(np.uint16) * 257
    deep[3, 4] = 1000
    content = encoded(Image.fromarray(deep), "PNG", transparency=1000)
    expected = GRAY.copy()
    expected[3, 4] = 255
    np.testing.assert_array_equal(np.asarray(decode_image(content)), expected)


def test_palette_image_gets_its_colors_and_a_gray_palette_is_gray() -> None:
    indices = noise(2, 5, 8) % 4
    palette = Image.fromarray(indices, "L").copy()
    palette = palette.convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 0, 1, 2, 3, 250, 251, 252] + [0] * 756)
    colors = np.array([[10, 20, 30], [200, 100, 0], [1, 2, 3], [250, 251, 252]], dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decode_image(encoded(palette, "PNG"))), colors[indices])
    gray = Image.fromarray(GRAY).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    assert decode_image(encoded(gray, "GIF")).mode == "L"
    assert read_header(encoded(gray, "GIF"), "x").is_gray


def test_cmyk_is_converted_to_rgb() -> None:
    cmyk = Image.new("CMYK", (10, 7), (0, 255, 255, 0))
    np.testing.assert_array_equal(np.asarray(decode_image(encoded(cmyk, "TIFF")))[3, 4], (255, 0, 0))


def test_lab_is_converted_to_rgb_by_its_profile() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    color = Image.new("RGB", (10, 7), (200, 60, 30))
    converted = ImageCms.profileToProfile(color, srgb, lab, outputMode="LAB")
    np.testing.assert_allclose(np.asarray(decode_image(converted))[3, 4], (200, 60, 30), atol=4)


def test_sixteen_bit_values_are_scaled_to_eight_bits() -> None:
    deep = GRAY.astype(np.uint16) * 257
    np.testing.assert_array_equal(np.asarray(decode_image(deep)), GRAY)
    for form in (deep, deep.astype(np.int32)):  # Pillow's mode I means 16 bits
        np.testing.assert_array_equal(np.asarray(decode_image(encoded(Image.fromarray(form), "TIFF"))), GRAY)


def test_integers_that_need_no_more_than_eight_bits_do_not_become_black() -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(GRAY.astype(np.int64))), GRAY)


def test_floats_from_zero_to_one_and_booleans_are_scaled_to_white() -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(GRAY / 255.0)), GRAY)
    np.testing.assert_array_equal(np.asarray(decode_image(GRAY > 99)), np.where(GRAY > 99, 255, 0))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[-1.5, 1.0]]), "values from -1.5 to 1; must lie in 0..1 (float), 0..65535 (uint16)"),
        (np.array([[0, 70000]]), "values from 0 to 70000; must lie in"),
        (np.array([[0.0, 200.0]]), "values from 0 to 200; must lie in"),
        (np.array([[0.5, np.nan]]), "values from nan to nan; must be finite"),
        (np.zeros((17, 40, 20), np.uint8), "array of shape (17, 40, 20); must be [height, width] or"),
        (np.zeros((0, 10), np.uint8), "array of shape (0, 10); must be"),
        (np.zeros((2, 2), object), "values of type object; must be numbers"),
    ],
)
def test_array_of_unknown_range_or_shape_is_an_error(array: NDArray[Any], reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_image(array, where="scan 17")
    assert str(caught.value).startswith(f"scan 17: {reason}")
    assert reason_of(caught.value, "scan 17").startswith(reason)


# Formats and modes.


def over_white(content: bytes) -> NDArray[np.float64]:
    """Compute the expected pixels: upright by Pillow's own function, on white in float64."""
    with Image.open(io.BytesIO(content)) as opened:
        rgba = np.asarray(ImageOps.exif_transpose(opened).convert("RGBA")).astype(np.float64)
    alpha = rgba[:, :, 3:] / 255
    return rgba[:, :, :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ("1", ["PNG", "TIFF", "BMP", "PPM"]),
        ("L", ["PNG", "TIFF", "BMP", "PPM", "GIF", "JPEG", "TGA"]),
        ("LA", ["PNG", "TIFF", "TGA"]),
        ("P", ["PNG", "TIFF", "BMP", "GIF", "TGA"]),
        ("RGB", ["PNG", "TIFF", "BMP", "PPM", "GIF", "JPEG", "TGA"]),
        ("RGBA", ["PNG", "TIFF", "GIF", "TGA", "ICO"]),
        ("CMYK", ["TIFF", "JPEG"]),
    ],
)
def test_every_mode_and_format_has_pillows_pixels_on_white_and_a_matching_header(mode: str, kinds: list[str]) -> None:
    rgba = np.dstack([SMOOTH[:32, :32], noise(4, 32, 32)])
    image = Image.fromarray(rgba if "A" in mode else rgba[:, :, :3].copy()).convert(mode)
    for kind in kinds:
        content = encoded(image, kind)
        np.testing.assert_allclose(np.asarray(decode_image(content, in_chans=3)), over_white(content), atol=1.0)
        own = decode_image(content)
        assert own.mode in ("L", "RGB")
        assert read_header(content, "x") == Header(height=own.height, width=own.width, is_gray=own.mode == "L")


@pytest.mark.parametrize(
    ("kind", "most"), [("LAB", 6.0), ("TIFF", 1.0), ("JPEG", 8.0), pytest.param("WEBP", 8.0, marks=needs_webp)]
)
def test_formats_of_one_photo_look_alike(kind: str, most: float) -> None:
    photo = Image.fromarray(SMOOTH)
    if kind == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        content = encoded(ImageCms.profileToProfile(photo, srgb, lab, outputMode="LAB"), "TIFF")
    else:
        content = encoded(photo, kind)
    difference = np.abs(np.asarray(decode_image(content, in_chans=3)).astype(int) - SMOOTH)
    assert difference.mean() < most


def png(pixels: NDArray[np.uint8], *, interlaced: bool) -> bytes:
    """Write an 8-bit RGB PNG; Pillow itself writes no interlaced ones."""
    starts_and_steps = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    passes = [pixels[y::dy, x::dx] for y, x, dy, dx in starts_and_steps] if interlaced else [pixels]
    rows = b"".join(b"\0" + row.tobytes() for part in passes for row in part if row.size)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, int(interlaced))
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize("interlaced", [False, True])
def test_interlaced_file_equals_the_plain_one(interlaced: bool) -> None:
    pixels = noise(5, 13, 21, 3)
    np.testing.assert_array_equal(np.asarray(decode_image(png(pixels, interlaced=interlaced))), pixels)


def test_animation_gives_its_first_frame() -> None:
    first, second = Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)
    content = encoded(first, "PNG", save_all=True, append_images=[second])
    np.testing.assert_array_equal(np.asarray(decode_image(content)), PHOTO)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_truncated_file_is_an_error_and_not_a_half_black_image(kind: str) -> None:
    content = encoded(Image.fromarray(noise(0, 61, 83, 3)), kind)
    with pytest.raises(DecodeError, match=r"^cut\.x: .+"):
        decode_image(content[: len(content) * 2 // 3], where="cut.x")


def test_file_with_damaged_data_is_an_error() -> None:
    plain = encoded(Image.fromarray(SMOOTH), "PNG")
    data = plain.index(b"IDAT") + 40
    jpeg = encoded(Image.fromarray(SMOOTH), "JPEG")
    tables = jpeg.index(b"\xff\xc4")
    for content in (
        plain[:data] + b"damaged" + plain[data + 7 :],
        plain.replace(b"IDAT", b"IDAX"),
        jpeg[:tables] + b"\xff\xc4" + bytes(30) + jpeg[tables + 32 :],
    ):
        with pytest.raises(DecodeError, match=r"^damaged: .+"):
            decode_image(content, where="damaged")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"no image", "not an image that Pillow can read")]
)
def test_error_for_something_else_than_an_image_has_its_name(content: bytes, reason: str) -> None:
    for read in (lambda: decode_image(content, where="a b/ü.jpg"), lambda: read_header(content, "a b/ü.jpg")):
        with pytest.raises(DecodeError) as caught:
            read()
        assert str(caught.value) == f"a b/ü.jpg: {reason}"


def test_error_for_a_missing_file_has_its_path(tmp_path: Path) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_image(tmp_path / "gone.png")
    assert str(caught.value) == f"{tmp_path / 'gone.png'}: No such file or directory"


def test_image_over_the_pixel_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_MAX_PIXELS", "69")
    content = encoded(Image.fromarray(PHOTO), "PNG")
    for read in (lambda: decode_image(content, where="big"), lambda: read_header(content, "big")):
        with pytest.raises(DecodeError) as caught:
            read()
        assert str(caught.value) == "big: 10x7 px is over the limit of 69 px; set VITREOUS_MAX_PIXELS to allow more"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_image_that_pillow_would_refuse_is_read_and_reduced_if_it_is_not_a_jpeg(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = Image.fromarray(noise(3, 6, 8, 3)).resize((80, 60), Image.Resampling.BICUBIC).convert(mode)
    content = encoded(smooth, "PNG")
    plain = decode_image(content, at_least=(6, 7))
    assert plain.size == (80, 60)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice this
    monkeypatch.setattr(decode, "HUGE_PIXELS", 100)
    found = decode_image(content, at_least=(6, 7))
    assert found.size == ((80, 60) if mode == "P" else (20, 15))
    expected = plain.resize(found.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 2
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("text", ["0", "-5", "many", "1e9"])
def test_invalid_pixel_limit_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_MAX_PIXELS", text)
    with pytest.raises(ConfigError, match=rf"^VITREOUS_MAX_PIXELS={text}: must be a number of pixels above 0; "):
        decode_image(encoded(Image.fromarray(PHOTO), "PNG"))


def test_large_jpeg_is_read_at_a_reduced_size_that_is_at_least_twice_the_used_one() -> None:
    smooth = np.asarray(Image.fromarray(noise(3, 6, 8, 3)).resize((800, 600), Image.Resampling.BICUBIC))
    content = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    reduced = decode_image(content, at_least=(60, 40))
    assert reduced.size == (200, 150)
    expected = Image.fromarray(smooth).resize((200, 150), Image.Resampling.BOX)
    assert np.abs(np.asarray(reduced).astype(int) - np.asarray(expected)).max() < 12


def test_image_object_of_the_user_does_not_change() -> None:
    opened = Image.open(io.BytesIO(encoded(Image.fromarray(noise(0, 400, 600, 3)), "JPEG")))
    assert decode_image(opened, at_least=(20, 30)).size == (600, 400)
    assert opened.size == (600, 400)
    decode_image(opened).putpixel((0, 0), (1, 2, 3))
    assert opened.getpixel((0, 0)) != (1, 2, 3)


def test_warnings_about_odd_metadata_are_ignored_in_every_thread() -> None:
    content = encoded(Image.fromarray(PHOTO), "PNG")

    def warn(image: Image.Image) -> int:
        warnings.warn_explicit("odd EXIF data", UserWarning, "Image.py", 1, module="PIL.Image")
        return 1

    before = list(warnings.filters)
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(20):
            decode_image(content)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        patch.setattr(decode, "_orientation", warn)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    assert caught == []
    assert list(warnings.filters) == before


def test_image_with_damaged_exif_data_is_readable() -> None:
    content = encoded(Image.fromarray(PHOTO), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(np.asarray(decode_image(content)), PHOTO)
