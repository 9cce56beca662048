"""Real files that are odd or damaged; `test_decode.py` and `test_jpeg.py` prove the same claims on drawn images.

The files are not part of the repository; without them these tests are skipped.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.decoding.test_decode import over_white
from tests.unit.data.decoding.test_jpeg import assert_same_with_and_without_simplejpeg

from vitreous.data.decoding.decode import Header, decode_image, read_header
from vitreous.data.decoding.depth import Scale
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import DecodeError

Shared = Callable[..., Path]
DAMAGED = {
    "truncated_image.png", "truncated_jpeg.jpg", "corrupt34_2.jpg", "corrupt34_3.jpg", "corrupt34_4.jpg", "broken.png",
    "broken_data_stream.png", "corrupt.jpg", "sigsegv.png",
}  # fmt: skip


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "LICENSE" not in path.name)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns about odd metadata when it computes `over_white`
def test_real_files_have_pillows_pixels_and_a_matching_header_except_nine_damaged_ones(shared: Shared) -> None:
    paths = files_below(shared("messy-files"))
    assert len(paths) == 83
    tested_below = {"16bit.r.tif", "12in16bit.tif", "i_trns.png", "hopper.Lab.tif"}
    compared, errors = 0, {}
    for path in paths:
        try:
            image = decode_image(path)
        except DecodeError as error:
            errors[path] = str(error)
            continue
        assert image.mode in ("L", "RGB")
        header = read_header(path.read_bytes(), path.name)
        assert header == Header(image.height, image.width, image.mode == "L", is_deep=header.is_deep)
        assert header.is_deep or path.name not in {"16bit.r.tif", "12in16bit.tif"}
        if path.name not in tested_below:
            found = np.asarray(decode_image(path, in_chans=3)).astype(np.float64)
            np.testing.assert_allclose(found, over_white(path.read_bytes()), atol=1.0, err_msg=str(path))
            compared += 1
    assert {path.name for path in errors} == DAMAGED
    assert compared == 83 - 9 - len(tested_below)
    assert all(text.startswith(f"{path}: ") and "\n" not in text for path, text in errors.items())


def test_real_rotated_files_equal_the_upright_original(shared: Shared) -> None:
    folder = shared("messy-files", "pillow")
    upright = np.asarray(decode_image(folder / "hopper.jpg")).astype(int)
    for kind in ("jpg", "webp"):
        for orientation in range(2, 9):
            rotated = np.asarray(decode_image(folder / f"hopper_orientation_{orientation}.{kind}")).astype(int)
            assert np.abs(rotated - upright).mean() < 8  # compressed again; a wrong orientation differs by 60


def test_real_deep_files_are_scaled_by_the_given_range(shared: Shared) -> None:
    folder = shared("messy-files", "pillow")
    for name, top in (("16bit.r.tif", 1023), ("12in16bit.tif", 255)):
        with Image.open(folder / name) as opened:
            deep = np.asarray(opened).astype(np.float64)
        assert deep.max() <= top
        found = np.asarray(decode_image(folder / name, scale=Scale((0.0, float(top)))))
        np.testing.assert_allclose(found, deep * 255 / top, atol=0.5)


def test_real_files_of_one_photo_look_alike(shared: Shared) -> None:
    folder = shared("messy-files", "pillow")
    photo = np.asarray(decode_image(folder / "hopper.png", in_chans=3)).astype(int)
    for name, most in (("hopper.Lab.tif", 6.0), ("hopper.tif", 1.0), ("hopper.webp", 8.0)):
        other = np.asarray(decode_image(folder / name, in_chans=3)).astype(int)
        assert np.abs(photo - other).mean() < most


def test_real_interlaced_file_equals_the_plain_one(shared: Shared) -> None:
    folder = shared("messy-files", "torchvision", "interlaced_png")
    plain, interlaced = (decode_image(folder / f"wizard_low{kind}.png") for kind in ("", "-interlaced"))
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(interlaced))


def test_simplejpeg_gives_pillows_pixels_of_real_files(shared: Shared) -> None:
    pytest.importorskip("simplejpeg")
    for parts in (("messy-files",), ("sign-digits", "7"), ("clothing-96px", "test", "dress")):
        contents = []
        for path in files_below(shared(*parts))[:100]:
            try:
                decode_image(path)
            except DecodeError:
                with pytest.raises(DecodeError):
                    decode_image(path.read_bytes())
            else:
                contents.append(path.read_bytes())
        assert_same_with_and_without_simplejpeg(contents, Preprocess((32, 40), 3))
