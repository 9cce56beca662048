import io
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vitreous.data.decoding import decode
from vitreous.data.decoding.decode import Header, decode_image, read_header, reason_of
from vitreous.errors import DecodeError


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PHOTO = noise(0, 7, 10, 3)
GRAY = noise(1, 7, 10)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_come_back_as_they_were(kind: str) -> None:
    image = decode_image(encoded(Image.fromarray(PHOTO), kind))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), PHOTO)


def test_path_bytes_image_and_array_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ein Bild mit Ü.png"
    Image.fromarray(PHOTO).save(path)
    for form in (path, str(path), path.read_bytes(), Image.fromarray(PHOTO), PHOTO):
        np.testing.assert_array_equal(np.asarray(decode_image(form)), PHOTO)


def test_channels_follow_the_image_unless_asked() -> None:
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_image_and_header_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(PHOTO), "PNG", exif=exif.tobytes())
    expected = UPRIGHT[orientation](PHOTO)
    np.testing.assert_array_equal(np.asarray(decode_image(content)), expected)
    assert read_header(content, "x") == Header(height=expected.shape[0], width=expected.shape[1], is_gray=False)


@pytest.mark.parametrize("kind", ["jpg", "webp"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_shared_oriented_files_equal_the_upright_original(
    shared: Callable[..., Path], kind: str, orientation: int
) -> None:
    folder = shared("messy-files", "pillow")
    turned = np.asarray(decode_image(folder / f"hopper_orientation_{orientation}.{kind}")).astype(int)
    upright = np.asarray(decode_image(folder / "hopper.jpg")).astype(int)
    assert np.abs(turned - upright).mean() < 8  # compressed anew; the image turned wrongly differs by 60


def test_shared_messy_files_decode_but_for_the_nine_damaged_ones(shared: Callable[..., Path]) -> None:
    folder = shared("messy-files")
    damaged = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "LICENSE" not in p.name):
        try:
            image = decode_image(path)
        except DecodeError:
            damaged.add(path.name)
        else:
            assert image.mode in ("L", "RGB")
            header = read_header(path.read_bytes(), path.name)
            assert header == Header(height=image.height, width=image.width, is_gray=image.mode == "L")
    truncated = {"truncated_image.png", "truncated_jpeg.jpg", "corrupt34_2.jpg", "corrupt34_3.jpg", "corrupt34_4.jpg"}
    assert damaged == truncated | {"broken.png", "broken_data_stream.png", "corrupt.jpg", "sigsegv.png"}


def test_transparent_pixels_show_white() -> None:
    rgba = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    rgba[2, 3, 3], rgba[4, 5] = 0, (100, 0, 0, 51)
    expected = PHOTO.copy()
    expected[2, 3], expected[4, 5] = 255, (224, 204, 204)
    for form in (rgba, encoded(Image.fromarray(rgba), "PNG")):
        np.testing.assert_array_equal(np.asarray(decode_image(form)), expected)


def test_gray_with_transparency_stays_gray() -> None:
    la = np.dstack([GRAY, np.full(GRAY.shape, 255, np.uint8)])
    la[1, 2, 1] = 0
    expected = GRAY.copy()
    expected[1, 2] = 255
    image = decode_image(encoded(Image.fromarray(la), "PNG"))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_one_transparent_colour_of_an_opaque_mode_shows_white() -> None:
    deep = GRAY.astype(np.uint16) * 257
    deep[3, 4] = 1000
    content = encoded(Image.fromarray(deep), "PNG", transparency=1000)
    expected = GRAY.copy()
    expected[3, 4] = 255
    np.testing.assert_array_equal(np.asarray(decode_image(content)), expected)


def test_palette_gives_its_colours_and_a_gray_palette_is_gray() -> None:
    indices = noise(2, 5, 8) % 4
    palette = Image.fromarray(indices, "L").copy()
    palette = palette.convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 0, 1, 2, 3, 250, 251, 252] + [0] * 756)
    colours = np.array([[10, 20, 30], [200, 100, 0], [1, 2, 3], [250, 251, 252]], dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decode_image(encoded(palette, "PNG"))), colours[indices])
    gray = Image.fromarray(GRAY).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    assert decode_image(encoded(gray, "GIF")).mode == "L"
    assert read_header(encoded(gray, "GIF"), "x").is_gray


def test_cmyk_is_converted() -> None:
    cmyk = Image.new("CMYK", (10, 7), (0, 255, 255, 0))
    np.testing.assert_array_equal(np.asarray(decode_image(encoded(cmyk, "TIFF")))[3, 4], (255, 0, 0))


def test_lab_is_converted_through_its_profile() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    colours = Image.new("RGB", (10, 7), (200, 60, 30))
    converted = ImageCms.profileToProfile(colours, srgb, lab, outputMode="LAB")
    np.testing.assert_allclose(np.asarray(decode_image(converted))[3, 4], (200, 60, 30), atol=4)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_values_are_scaled_by_sixteen_bits(dtype: type) -> None:
    deep = (GRAY.astype(np.int64) * 257).astype(dtype)
    np.testing.assert_array_equal(np.asarray(decode_image(deep)), GRAY)
    image = Image.fromarray(deep)
    np.testing.assert_array_equal(np.asarray(decode_image(encoded(image, "TIFF"))), GRAY)


def test_eight_bit_values_in_a_deeper_type_are_not_turned_black() -> None:
    for dtype in (np.uint16, np.int64, np.float64):
        np.testing.assert_array_equal(np.asarray(decode_image(GRAY.astype(dtype))), GRAY)


def test_unit_floats_and_booleans_reach_white() -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(GRAY / 255.0)), GRAY)
    np.testing.assert_array_equal(np.asarray(decode_image(GRAY > 99)), np.where(GRAY > 99, 255, 0))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[-1.5, 1.0]]), "values from -1.5 to 1; must lie in 0..1 (float) or 0..65535"),
        (np.array([[0, 70000]]), "values from 0 to 70000; must lie in"),
        (np.array([[0.5, np.nan]]), "values from nan to nan; must lie in"),
        (np.zeros((3, 7, 10), np.uint8), "array of shape (3, 7, 10); must be [height, width] or"),
        (np.zeros((0, 10), np.uint8), "array of shape (0, 10); must be"),
    ],
)
def test_array_without_a_known_meaning_is_refused(array: NDArray[Any], reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_image(array, where="scan 17")
    assert str(caught.value).startswith(f"scan 17: {reason}")
    assert reason_of(caught.value, "scan 17").startswith(reason)


def test_animation_gives_its_first_frame() -> None:
    first, second = Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)
    content = encoded(first, "PNG", save_all=True, append_images=[second])
    np.testing.assert_array_equal(np.asarray(decode_image(content)), PHOTO)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_truncated_file_is_an_error_not_a_half_black_image(kind: str) -> None:
    content = encoded(Image.fromarray(noise(0, 61, 83, 3)), kind)
    with pytest.raises(DecodeError, match=r"^cut\.x: .+"):
        decode_image(content[: len(content) * 2 // 3], where="cut.x")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"no image", "not an image that Pillow can read")]
)
def test_what_is_no_image_is_told_with_its_name(content: bytes, reason: str) -> None:
    for read in (lambda: decode_image(content, where="a b/ü.jpg"), lambda: read_header(content, "a b/ü.jpg")):
        with pytest.raises(DecodeError) as caught:
            read()
        assert str(caught.value) == f"a b/ü.jpg: {reason}"


def test_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_image(tmp_path / "gone.png")
    assert str(caught.value) == f"{tmp_path / 'gone.png'}: No such file or directory"


def test_image_over_the_pixel_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 69)
    content = encoded(Image.fromarray(PHOTO), "PNG")
    for read in (lambda: decode_image(content, where="big"), lambda: read_header(content, "big")):
        with pytest.raises(DecodeError) as caught:
            read()
        assert str(caught.value) == "big: 10x7 px is over the limit of 69 px"


def test_large_jpeg_is_read_reduced_but_never_below_twice_what_is_used() -> None:
    smooth = np.asarray(Image.fromarray(noise(3, 6, 8, 3)).resize((800, 600), Image.Resampling.BICUBIC))
    content = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    reduced = decode_image(content, at_least=(60, 40))
    assert reduced.size == (200, 150)
    expected = Image.fromarray(smooth).resize((200, 150), Image.Resampling.BOX)
    assert np.abs(np.asarray(reduced).astype(int) - np.asarray(expected)).max() < 12


def test_users_own_image_object_stays_as_it_is() -> None:
    opened = Image.open(io.BytesIO(encoded(Image.fromarray(noise(0, 400, 600, 3)), "JPEG")))
    assert decode_image(opened, at_least=(20, 30)).size == (600, 400)
    assert opened.size == (600, 400)
    decode_image(opened).putpixel((0, 0), (1, 2, 3))
    assert opened.getpixel((0, 0)) != (1, 2, 3)


def test_odd_metadata_warns_nobody_from_any_thread() -> None:
    content = encoded(Image.fromarray(PHOTO), "PNG")

    def remark(image: Image.Image) -> int:
        warnings.warn_explicit("odd EXIF data", UserWarning, "Image.py", 1, module="PIL.Image")
        return 1

    before = list(warnings.filters)
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(20):
            decode_image(content)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        patch.setattr(decode, "_orientation", remark)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    assert caught == []
    assert list(warnings.filters) == before


def test_damaged_exif_leaves_the_image_readable() -> None:
    content = encoded(Image.fromarray(PHOTO), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(np.asarray(decode_image(content)), PHOTO)
