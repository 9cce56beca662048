"""Outliers by features, and near-duplicates of which one is cropped."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from tests.unit.data.doctor.conftest import photo

from vitreous.data.doctor import cropped
from vitreous.data.doctor.cropped import find_cropped_duplicates
from vitreous.data.doctor.near_duplicates import SIDE_PX, find_near_duplicates
from vitreous.data.doctor.outliers import LIMIT, outlier_scores


def groups(images: list[Image.Image], find: Callable[..., Any] = find_cropped_duplicates) -> list[int]:
    small = [image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR) for image in images]
    gray = np.stack([np.asarray(image.convert("L")) for image in small])
    side = SIDE_PX // 4
    return find(
        gray, np.stack([np.asarray(image.resize((side, side), Image.Resampling.BOX)) for image in small])
    ).tolist()


def crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 20, height // 20, width - width // 20, height - height // 20))


def test_copies_that_are_cropped_and_brightened_are_found_and_only_with_crops() -> None:
    images = [photo(seed) for seed in range(12)]
    both = [*images, *(ImageEnhance.Brightness(crop(image)).enhance(1.2) for image in images)]
    found = groups(both)
    assert found[:12] == found[12:]
    assert len(set(found)) == 12
    assert len(set(groups(both, find_near_duplicates))) > 12


def test_different_images_are_not_grouped_by_crops() -> None:
    assert len(set(groups([photo(seed) for seed in range(40)]))) == 40


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_can_be_grouped(count: int) -> None:
    gray = np.zeros((count, SIDE_PX, SIDE_PX), np.uint8)
    assert len(find_cropped_duplicates(gray, np.zeros((count, 8, 8, 3), np.uint8))) == count


def test_near_duplicates_without_crops_stay_in_their_groups() -> None:
    images = [photo(seed) for seed in range(8)]
    found = groups([*images, images[3].resize((90, 60)), images[3].convert("L"), images[5]])
    assert found[3] == found[8] == found[9]
    assert found[5] == found[10]
    assert len(set(found)) == 8


def test_sets_that_are_too_large_are_compared_without_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cropped, "MOST_IMAGES", 5)
    images = [photo(seed) for seed in range(4)]
    both = [*images, *map(crop, images)]
    assert groups(both) == groups(both, find_near_duplicates)


def test_images_far_from_all_others_are_outliers_even_if_there_are_several_of_one_kind() -> None:
    random = np.random.default_rng(0)
    usual = random.normal(size=(400, 16)) + 6 * np.eye(16)[0]
    foreign = 0.3 * random.normal(size=(8, 16)) - 6 * np.eye(16)[1]
    scores = outlier_scores(np.concatenate([usual, foreign]).astype(np.float32))
    assert (scores[400:] > LIMIT).all()
    assert (scores[:400] > LIMIT).mean() < 0.02


def test_small_or_uniform_sets_have_no_outliers() -> None:
    assert not outlier_scores(np.eye(20, dtype=np.float32)).any()
    assert not (outlier_scores(np.ones((200, 4), dtype=np.float32)) > LIMIT).any()
