"""lay_over: relevance can be seen on light and dark photos, and the photo under it."""

import numpy as np
import pytest
from PIL import Image

from vitreous.use.explain.pictures.overlay import ColorScale, lay_over

POSITIVE, SIGNED = ColorScale(2.0, is_signed=False), ColorScale(2.0, is_signed=True)


def colored(brightness: int, value: float, scale: ColorScale) -> np.ndarray:
    photo = Image.new("RGB", (3, 2), (brightness,) * 3)
    return np.asarray(lay_over(photo, np.full((2, 3), value, np.float32), scale))[0, 0].astype(float)


@pytest.mark.parametrize("brightness", [0, 60, 128, 200, 255])
@pytest.mark.parametrize(("value", "scale"), [(2.0, POSITIVE), (1.0, POSITIVE), (2.0, SIGNED), (-2.0, SIGNED)])
def test_relevance_can_be_distinguished_on_any_photo(brightness: int, value: float, scale: ColorScale) -> None:
    difference = np.abs(colored(brightness, value, scale) - colored(brightness, 0.0, scale))
    assert difference.max() > 40


@pytest.mark.parametrize("brightness", [0, 128, 255])
def test_both_signs_differ_even_without_red_and_green(brightness: int) -> None:
    """Color-blind readers can hardly distinguish red from green; blue remains."""
    raising, lowering = (colored(brightness, value, SIGNED) for value in (2.0, -2.0))
    assert lowering[2] - raising[2] > 60


@pytest.mark.parametrize("value", [0.0, 0.5, 2.0])
def test_light_and_dark_parts_of_the_photo_differ_under_the_color(value: float) -> None:
    assert (colored(255, value, POSITIVE) - colored(0, value, POSITIVE)).min() > 20


def test_without_relevance_the_photo_is_gray_and_where_it_is_not_seen_it_is_darker() -> None:
    photo = Image.fromarray(np.full((1, 2, 3), (250, 10, 10), np.uint8))
    (seen, unseen) = np.asarray(lay_over(photo, np.array([[0.0, np.nan]], np.float32), SIGNED))[0].astype(int)
    assert len(set(seen)) == len(set(unseen)) == 1
    assert unseen[0] < seen[0]


def test_zero_is_the_same_color_whatever_the_other_values_are() -> None:
    for values in ([[0.0, 5.0]], [[0.0, -5.0]], [[0.0, 0.0]]):
        scale = ColorScale.of(np.array(values), is_signed=True)
        assert scale.limit == (max(map(abs, values[0])) or 1.0)
        assert colored(100, 0.0, scale).tolist() == [65, 65, 65]


def test_values_that_are_not_finite_do_not_set_the_scale() -> None:
    assert ColorScale.of(np.array([[np.inf, 3.0], [np.nan, -1.0]]), is_signed=True).limit == 3
