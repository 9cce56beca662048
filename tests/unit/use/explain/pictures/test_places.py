"""The sheet of a check for shortcuts: which classes and photos it shows, where, and what is outlined."""

import numpy as np
import pytest
from PIL import Image
from tests.unit.use.explain.anatomy.models import make_model, sample_of

from vitreous.use.explain.pictures import places
from vitreous.use.explain.pictures.contact_sheet import Strip
from vitreous.use.explain.pictures.places import draw_places
from vitreous.use.explain.shortcuts import Shortcut

CLASSES = ("few", "many", "<b>\nmarked", "never")
PREDICTED = np.array([1, 1, 0, 1, 2, 1, 2, 1, 1, 2])
LEFT = Shortcut(CLASSES[2], "left edge", (0, 0, 1 / 3, 1), 1 / 3, (4, 6, 9), 3, 0.001)
OUTLINE = (0, 229, 255)


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> list[Strip]:
    """The strips that are drawn."""
    drawn: list[Strip] = []
    real = places.draw_sheet
    monkeypatch.setattr(places, "draw_sheet", lambda given, side: drawn.extend(given) or real(given, side))
    sample = sample_of(make_model(), np.zeros(len(PREDICTED), np.int64), CLASSES)
    values = np.zeros((len(PREDICTED), 2, 3), np.float32)
    values[:, 1, 2], values[:, 0, 1] = 3.0, -100.0  # values below 0 do not count
    values[[4, 6, 9], :, 0] = [[1.5, 0.0], [13.5, 13.5], [0.0, 0.0]]
    sheet = draw_places(sample, values, PREDICTED, [LEFT])
    assert sheet.height > 3 * places._SIDE_PX
    return drawn


def outlined(picture: Image.Image) -> bool:
    return bool((np.asarray(picture) == OUTLINE).all(axis=2).any())


def test_classes_with_a_shortcut_come_first_then_the_largest_and_those_never_predicted_are_left_out(
    strips: list[Strip],
) -> None:
    titles = [strip.title for strip in strips]
    assert titles == [r"<b>\nmarked, 3 images: left edge", "many, 6 images", "few, 1 image"]


def test_photos_of_a_shortcut_are_those_with_most_relevance_there_with_their_share(strips: list[Strip]) -> None:
    assert list(strips[0].captions) == ["mean of all", "", "90% there", "", "33% there", "", "0% there"]
    assert [len(strip.pictures) for strip in strips] == [7, 9, 3]


def test_the_place_is_outlined_on_relevance_and_not_on_photos_or_other_classes(strips: list[Strip]) -> None:
    marked = [outlined(picture) for picture in strips[0].pictures]
    assert marked == [True, False, True, False, True, False, True]
    assert not any(outlined(picture) for strip in strips[1:] for picture in strip.pictures)


def test_mean_relevance_is_brightest_where_it_is_largest(strips: list[Strip]) -> None:
    mean = np.asarray(strips[1].pictures[0].convert("L")).astype(int)
    assert mean[-1, -1] > mean[0, 0] + 50
