import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.config import Fit
from vitreous.data.decoding.preprocess import Preprocess, crop_box
from vitreous.errors import ConfigError, DecodeError, UnknownNameError


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def antialiased_bicubic(array: NDArray[np.uint8], height: int, width: int) -> torch.Tensor:
    image = torch.from_numpy(array).permute(2, 0, 1)[None].to(torch.float64)
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True)[0].clamp(0, 255)


@pytest.mark.parametrize(("height", "width"), [(12, 17), (40, 90), (31, 20)])
def test_squash_resizes_both_sides_with_antialiasing(height: int, width: int) -> None:
    array = 70 + noise(31, 47, 3) // 2  # avoid 0 and 255, because Pillow clips between its two passes
    pixels = Preprocess((height, width), 3, "squash").pixels(array)
    assert pixels.dtype == torch.uint8
    expected = antialiased_bicubic(array, height, width)
    torch.testing.assert_close(pixels.to(torch.float64), expected, atol=1.5, rtol=0)


def test_crop_keeps_the_center_of_a_wide_image() -> None:
    array = noise(20, 60, 3)
    pixels = Preprocess((10, 10), 3, "crop").pixels(array)
    cut = Image.fromarray(array).resize((10, 10), Image.Resampling.BICUBIC, box=(20, 0, 40, 20))
    torch.testing.assert_close(pixels, torch.from_numpy(np.array(cut)).permute(2, 0, 1))


def test_crop_keeps_the_center_of_a_tall_image() -> None:
    array = noise(60, 20)
    pixels = Preprocess((5, 10), 1, "crop").pixels(array)
    cut = Image.fromarray(array).resize((10, 5), Image.Resampling.BICUBIC, box=(0, 25, 20, 35))
    torch.testing.assert_close(pixels, torch.from_numpy(np.array(cut))[None])


def test_pad_keeps_the_whole_image_and_repeats_its_edge() -> None:
    array = noise(8, 16)
    pixels = Preprocess((11, 8), 1, "pad").pixels(array)
    inner = np.array(Image.fromarray(array).resize((8, 4), Image.Resampling.BICUBIC))
    expected = np.concatenate([inner[:1]] * 3 + [inner] + [inner[-1:]] * 4)
    torch.testing.assert_close(pixels, torch.from_numpy(expected)[None])


def test_pad_of_an_extreme_aspect_ratio_keeps_one_pixel() -> None:
    assert Preprocess((6, 6), 3, "pad").pixels(noise(1, 500, 3)).shape == (3, 6, 6)


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_image_of_the_right_size_does_not_change(fit: str) -> None:
    array = noise(9, 14, 3)
    preprocess = Preprocess((9, 14), 3, fit)
    torch.testing.assert_close(preprocess.pixels(array), torch.from_numpy(array).permute(2, 0, 1))
    assert preprocess.leaves_unchanged(array.shape)


def test_only_arrays_of_the_right_size_and_channels_are_left_unchanged() -> None:
    gray, color = Preprocess((9, 14), 1), Preprocess((9, 14), 3)
    assert [gray.leaves_unchanged(s) for s in ((9, 14), (14, 9), (9, 14, 3))] == [True, False, False]
    assert [color.leaves_unchanged(s) for s in ((9, 14), (9, 14, 3), (14, 9, 3))] == [False, True, False]


def test_file_and_its_bytes_give_the_same_pixels(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(300, 500, 3)).save(stream, "JPEG")
    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    preprocess = Preprocess((12, 20), 3)
    torch.testing.assert_close(preprocess.pixels(tmp_path / "a.jpg"), preprocess.pixels(stream.getvalue()))


def test_error_for_an_unreadable_image_has_its_name() -> None:
    with pytest.raises(DecodeError, match=r"^cat 4: not an image"):
        Preprocess((12, 20), 3).pixels(b"nothing", where="cat 4")


def test_normalize_is_the_textbook_formula_for_integers_and_floats() -> None:
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    preprocess = Preprocess((5, 7), 3, mean=mean, std=std)
    pixels = torch.from_numpy(noise(2, 3, 5, 7))
    shape = (3, 1, 1)
    expected = (pixels.double() / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    images = preprocess.normalize(pixels)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.double(), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(preprocess.normalize(pixels.float()), images)


def test_normalize_without_mean_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        Preprocess((5, 7), 3).normalize(torch.zeros(1, 3, 5, 7))
    assert str(caught.value) == (
        "preprocess.mean=None: must be set to normalize; set mean and std, e.g. from measure_mean_std"
    )


def test_settings_survive_json() -> None:
    preprocess = Preprocess((5, 7), 3, "pad", (0.1, 0.2, 0.3), (1.0, 0.5, 0.25))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.as_dict()))) == preprocess
    assert Preprocess.from_dict({"img_size": [5, 7], "in_chans": 1}) == Preprocess((5, 7), 1)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (
            {"img_size": [5, 7], "in_chan": 3},
            UnknownNameError,
            "preprocess.in_chan=3: no such key; did you mean in_chans?",
        ),
        ({"img_size": [5, 7]}, ConfigError, "preprocess.in_chans: missing; it must be given"),
        ({"in_chans": 3}, ConfigError, "preprocess.img_size: missing; it must be given"),
        ({"img_size": [5], "in_chans": 3}, ConfigError, "preprocess.img_size=(5,): must be 2 whole numbers"),
        ({"img_size": [5, 7], "in_chans": 17}, ConfigError, "preprocess.in_chans=17: must be in [1, 16]"),
        ({"img_size": [5, 7], "in_chans": 1, "mean": [0.5]}, ConfigError, "preprocess.mean=(0.5,): must be given with"),
    ],
)
def test_settings_with_a_mistake_are_an_error(values: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Preprocess.from_dict(values)
    assert str(caught.value).startswith(message)


SIDES = st.integers(1, 2000)


@settings(max_examples=500, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(st.integers(1, 640), st.integers(1, 640)))
def test_crop_box_is_the_exact_box_and_stays_inside_the_image(size: tuple[int, int], img_size: tuple[int, int]) -> None:
    left, top, right, bottom = crop_box(size, img_size)
    (height, width), (to_height, to_width) = size, img_size
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    zoom = min(Fraction(width, to_width), Fraction(height, to_height))
    exact = ((width - zoom * to_width) / 2, (height - zoom * to_height) / 2)
    assert (left, top) == pytest.approx(tuple(map(float, exact)), abs=1e-9)


@pytest.mark.parametrize("target", [96, 126, 224, 384])
def test_square_crop_of_every_size_stays_inside_the_image(target: int) -> None:
    for side in range(1, 4001):
        for size in ((side, 2 * side + 1), (side + 3, side)):
            assert min(crop_box(size, (target, target))[:2]) >= 0.0


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("side", [58, 116, 225, 232, 450, 464])
def test_sizes_that_round_outside_the_image_are_resized(fit: Fit, side: int) -> None:
    preprocess = Preprocess((224, 224), 3, fit)
    image = Image.new("RGB", (side, side + 40), (10, 20, 30))
    assert preprocess.pixels(image).shape == (3, 224, 224)
