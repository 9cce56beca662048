"""View: places in the model's input and in the photo, compared with what Pillow does to real pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitreous.data.config import Fit
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.use.explain.pictures.geometry import View

SIDES = st.integers(1, 300)
FITS = st.sampled_from(["crop", "squash", "pad"])


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(20, 200), st.integers(20, 200)), st.tuples(st.integers(8, 60), st.integers(8, 60)), FITS,
    st.booleans(),
)  # fmt: skip
def test_pixels_of_the_model_come_from_the_places_of_their_centers(
    size: tuple[int, int], img_size: tuple[int, int], fit: Fit, is_vertical: bool
) -> None:
    """A photo whose brightness is a linear ramp stays one when Pillow resizes it, so brightness says the place."""
    height, width = size
    length = height if is_vertical else width
    ramp = np.linspace(0, 255, length).round().astype(np.uint8)
    photo = np.broadcast_to(ramp[:, None] if is_vertical else ramp, size)
    pixels = Preprocess(img_size, 1, fit).pixels(np.ascontiguousarray(photo))[0].numpy()
    view = View.of(size, img_size, fit)
    place = np.meshgrid(*view.centers(img_size), indexing="ij")[0 if is_vertical else 1] - 0.5
    expected = np.interp(place, np.arange(length), np.linspace(0, 255, length))
    left, top, right, bottom = view.box
    per_pixel = (bottom - top) / img_size[0] if is_vertical else (right - left) / img_size[1]
    margin = 2.5 * max(1.0, per_pixel)  # the filter reaches this far, and is not linear at the edges
    inner = (place > margin) & (place < length - 1 - margin)
    np.testing.assert_allclose(pixels[inner], expected[inner], atol=2.5)


@pytest.mark.parametrize(("grid", "size"), [((3, 5), (63, 100)), ((7, 7), (98, 98)), ((1, 4), (9, 13))])
def test_map_is_the_bilinear_resize_of_pillow_and_of_torch(grid: tuple[int, int], size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=grid).astype(np.float32)
    found = View.of(size, (32, 32), "squash").map_of(values)
    pillow = Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found, np.asarray(pillow), atol=1e-5)
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear")
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), FITS, st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_map_is_nan_exactly_where_no_part_of_a_pixel_is_seen(
    size: tuple[int, int], img_size: tuple[int, int], fit: Fit, grid: tuple[int, int]
) -> None:
    view = View.of(size, img_size, fit)
    found = view.map_of(np.full(grid, 3.0, np.float32))
    left, top, right, bottom = view.box
    y, x = np.mgrid[: size[0], : size[1]]
    seen = (x + 1 > left + 1e-6) & (x < right - 1e-6) & (y + 1 > top + 1e-6) & (y < bottom - 1e-6)
    np.testing.assert_array_equal(np.isfinite(found), seen)
    np.testing.assert_allclose(found[seen], 3.0, rtol=1e-5)
    assert found.dtype == np.float32
    assert seen.any()
    assert fit == "crop" or seen.all()


def test_crop_of_a_wide_photo_leaves_out_its_left_and_right() -> None:
    view = View.of((20, 60), (10, 10), "crop")
    assert view.box == (20, 0, 40, 20)
    found = view.map_of(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert np.isnan(found[:, :20]).all()
    assert np.isnan(found[:, 40:]).all()
    assert found[0, 20] == 1
    assert found[19, 39] == 4


def test_padding_has_a_share_of_the_patches() -> None:
    view = View.of((20, 40), (8, 8), "pad")  # the photo has rows 2 to 6 of the input
    assert view.box == (0, -10, 40, 30)
    areas, shares = view.areas((4, 2))
    np.testing.assert_allclose(shares, [[0, 0], [1, 1], [1, 1], [0, 0]])
    np.testing.assert_allclose(areas, 200 * shares)
    np.testing.assert_allclose(view.areas((1, 1))[1], [[0.5]])
    np.testing.assert_allclose(view.map_of(np.array([[9.0], [1.0], [1.0], [9.0]]))[10], 1)


def test_area_of_a_token_is_what_is_nearest_to_its_center() -> None:
    view = View.of((20, 40), (8, 8), "pad", token_center=0.0)  # tokens at 0, 2, 4 and 6 px of the input
    areas, shares = view.areas((4, 4))
    np.testing.assert_allclose(areas.sum(axis=1) / 40, [0, 5, 10, 5])  # rows of the photo, 5 px per px of the input
    np.testing.assert_allclose(areas.sum(axis=0) / 20, [5, 10, 10, 15])
    np.testing.assert_allclose(shares[:, 0], [0, 0.5, 1, 1 / 3])
    np.testing.assert_allclose(view.centers((4, 4)), [[-10, 0, 10, 20], [0, 10, 20, 30]])


def test_pixel_larger_than_patches_has_their_mean() -> None:
    values = np.arange(64.0).reshape(8, 8)
    found = View.of((2, 2), (32, 32), "squash").map_of(values)
    np.testing.assert_allclose(found, values.reshape(2, 4, 2, 4).mean(axis=(1, 3)), rtol=0.02)


def test_resized_view_has_the_same_map_at_another_size() -> None:
    values = np.random.default_rng(1).random((4, 4))
    view = View.of((90, 30), (16, 16), "crop")
    np.testing.assert_allclose(view.resized((30, 10)).map_of(values)[15, 5], view.map_of(values)[46, 16], atol=1e-5)
