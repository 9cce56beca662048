"""Real odd files, each against pixels that were computed otherwise; and JPEG files with and without simplejpeg."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vitreous.data.decoding import jpeg
from vitreous.data.decoding.decode import decode_image
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import DecodeError

Shared = Callable[..., Path]


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "LICENSE" not in path.name)


def over_white(path: Path) -> NDArray[np.float64]:
    """Upright by Pillow's own function, laid over white in float64."""
    with Image.open(path) as opened:
        rgba = np.asarray(ImageOps.exif_transpose(opened).convert("RGBA")).astype(np.float64)
    alpha = rgba[:, :, 3:] / 255
    return rgba[:, :, :3] * alpha + 255 * (1 - alpha)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # the reference's, on odd metadata
def test_every_messy_file_has_the_pixels_that_pillow_and_float64_give_or_a_named_error(shared: Shared) -> None:
    paths = files_below(shared("messy-files"))
    assert len(paths) == 83
    otherwise = {"16bit.r.tif", "12in16bit.tif", "i_trns.png", "hopper.Lab.tif"}  # below
    compared, errors = 0, {}
    for path in paths:
        try:
            found = np.asarray(decode_image(path, in_chans=3)).astype(np.float64)
        except DecodeError as error:
            errors[path] = str(error)
            continue
        if path.name not in otherwise:
            np.testing.assert_allclose(found, over_white(path), atol=1.0, err_msg=str(path))
            compared += 1
    assert compared == 83 - 9 - len(otherwise)
    assert all(text.startswith(f"{path}: ") and "\n" not in text for path, text in errors.items())


def test_messy_deep_files_are_scaled_by_the_bits_that_their_values_need(shared: Shared) -> None:
    folder = shared("messy-files", "pillow")
    for name, top in (("16bit.r.tif", 1023), ("12in16bit.tif", 255)):
        with Image.open(folder / name) as opened:
            deep = np.asarray(opened).astype(np.float64)
        assert deep.max() <= top
        np.testing.assert_allclose(np.asarray(decode_image(folder / name)), deep * 255 / top, atol=0.5)


@pytest.mark.parametrize(("name", "most"), [("hopper.Lab.tif", 6.0), ("hopper.tif", 1.0), ("hopper.webp", 8.0)])
def test_messy_formats_of_one_photo_look_alike(shared: Shared, name: str, most: float) -> None:
    folder = shared("messy-files", "pillow")
    photo = np.asarray(decode_image(folder / "hopper.png", in_chans=3)).astype(int)
    other = np.asarray(decode_image(folder / name, in_chans=3)).astype(int)
    assert np.abs(photo - other).mean() < most


def test_interlaced_file_equals_the_plain_one(shared: Shared) -> None:
    folder = shared("messy-files", "torchvision", "interlaced_png")
    plain, interlaced = (decode_image(folder / f"wizard_low{kind}.png") for kind in ("", "-interlaced"))
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(interlaced))


# simplejpeg.


def without_simplejpeg(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(jpeg, "_simplejpeg", lambda: None)


def drawn_jpegs() -> list[bytes]:
    """All kinds that simplejpeg may take: colour or gray, each subsampling, odd sides, progressive."""
    smooth = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    photo = Image.fromarray(smooth).resize((67, 45), Image.Resampling.BICUBIC)
    contents = []
    for image in (photo, photo.convert("L"), photo.resize((1, 3))):
        for options in ({"subsampling": s} for s in (0, 1, 2)):
            for progressive in (False, True):
                file = io.BytesIO()
                image.save(file, "JPEG", quality=80, progressive=progressive, **options)
                contents.append(file.getvalue())
    return contents


def assert_alike(contents: list[bytes], preprocess: Preprocess) -> None:
    for content in contents:
        with pytest.MonkeyPatch.context() as patch:
            without_simplejpeg(patch)
            slow, slow_fitted = decode_image(content), preprocess.pixels(content)
        fast, fast_fitted = decode_image(content), preprocess.pixels(content)
        assert fast.mode == slow.mode
        assert np.abs(np.asarray(fast).astype(int) - np.asarray(slow)).max() <= 1
        assert (fast_fitted.int() - slow_fitted.int()).abs().max() <= 1


def test_simplejpeg_gives_pillows_pixels() -> None:
    pytest.importorskip("simplejpeg")
    contents = drawn_jpegs()
    assert all(jpeg.decode_jpeg(content, 10_000) is not None for content in contents)
    for preprocess in (Preprocess((45, 67), 3), Preprocess((45, 67), 1), Preprocess((20, 31), 3)):
        assert_alike(contents, preprocess)


@pytest.mark.parametrize("parts", [("messy-files",), ("sign-digits", "7"), ("clothing-96px", "test", "dress")])
def test_simplejpeg_gives_pillows_pixels_of_real_files(shared: Shared, parts: tuple[str, ...]) -> None:
    pytest.importorskip("simplejpeg")
    contents = []
    for path in files_below(shared(*parts))[:100]:
        try:
            decode_image(path)
        except DecodeError:
            with pytest.raises(DecodeError):
                decode_image(path.read_bytes())
        else:
            contents.append(path.read_bytes())
    assert_alike(contents, Preprocess((32, 40), 3))


def test_simplejpeg_leaves_to_pillow_what_the_two_treat_differently() -> None:
    pytest.importorskip("simplejpeg")
    content = drawn_jpegs()[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, cmyk = io.BytesIO(), io.BytesIO()
    image = Image.open(io.BytesIO(content))
    image.save(turned, "JPEG", exif=exif.tobytes())
    image.convert("CMYK").save(cmyk, "JPEG")
    assert jpeg.decode_jpeg(content, 45 * 67 - 1) is None
    assert jpeg.decode_jpeg(content, 10_000, at_least=(10, 8)) is None
    assert jpeg.decode_jpeg(content, 10_000, at_least=(40, 60)) is not None
    assert jpeg.decode_jpeg(content, 10_000, shape=(45, 67, 1)) is None
    for other in (turned.getvalue(), cmyk.getvalue(), content[:-300], b"", b"\xff\xd8\xff", b"\x89PNG"):
        assert jpeg.decode_jpeg(other, 10_000) is None
