from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.unit.data.decoding.test_depth import png16, tiff

from vitreous.data.sources import open_object, open_source
from vitreous.data.survey import value_range
from vitreous.data.survey.facts import DataFacts, survey


def scenes(low: float, high: float, count: int = 24, size: tuple[int, ...] = (20, 24)) -> list[NDArray[np.float64]]:
    draw = np.random.default_rng(1)
    return [np.clip(draw.uniform(low, high, size), low, high) for _ in range(count)]


def facts_of(images: Sequence[Any]) -> DataFacts:
    """Survey images, which get one of two classes in turn."""
    pairs = [(image, number % 2) for number, image in enumerate(images)]
    return survey(open_object(pairs), test_ratio=0.0, val_ratio=0.0).facts  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([image.astype(np.uint16) for image in scenes(300, 3900)], (0, 4095)),
        ([image.astype(np.uint16) for image in scenes(3, 950)], (0, 1023)),
        ([image.astype(np.uint16) for image in scenes(9000, 65000)], (0, 65535)),
        ([image.astype(np.uint16) for image in scenes(0, 200)], (0, 255)),
        ([image.astype(np.int64) for image in scenes(0, 255)], (0, 255)),
        ([np.rint(image) for image in scenes(0, 250)], (0, 255)),
        ([image.astype(np.float32) for image in scenes(0.01, 0.98)], (0, 1)),
        ([image.astype(np.float64) for image in scenes(0.5, 252.5)], (0, 255)),
    ],
    ids=["12 bits", "10 bits", "16 bits", "dark", "int64", "whole floats", "floats to 1", "floats to 255"],
)
def test_range_is_that_of_the_depth_that_holds_the_values(images: list[Any], expected: tuple[float, float]) -> None:
    assert facts_of(images).value_range == expected


@pytest.mark.parametrize(("low", "high"), [(280.0, 310.0), (-1000.0, 3000.0), (0.0, 0.2), (0.0, 80.3)])
def test_other_units_are_black_and_white_at_their_extremes(low: float, high: float) -> None:
    images = [image.astype(np.float32) for image in scenes(low, high)]
    found = facts_of(images).value_range
    assert found[0] == (0 if low == 0 else min(float(image.min()) for image in images))
    assert found[1] == max(float(image.max()) for image in images)


def test_hot_pixels_and_dead_pixels_do_not_change_the_range() -> None:
    images = [image.astype(np.uint16) for image in scenes(500, 3900, count=40, size=(60, 60))]
    for image in images:
        image[3, 4], image[5, 6] = 65535, 0
    facts = facts_of(images)
    assert facts.value_range == (0, 4095)
    assert "values from 0 to 65535; outliers (0.0" in facts.value_range_reason


def test_one_bright_image_of_many_is_part_of_the_range() -> None:
    images = [image.astype(np.uint16) for image in scenes(100, 900, count=30)]
    images[7] = images[7] + np.uint16(900)
    assert facts_of(images).value_range == (0, 4095)


def test_gray_and_color_files_share_one_range() -> None:
    gray = [png16(image.astype(np.uint16)) for image in scenes(100, 3000, count=6)]
    color = [png16(image.astype(np.uint16)) for image in scenes(100, 900, count=6, size=(9, 8, 3))]
    facts = facts_of([*gray, *color])
    assert (facts.value_range, facts.in_chans) == ((0, 4095), 3)
    assert facts.value_range_reason == "all 12 images have more than 8 bits, with values from 100 to 2999"


def test_images_of_eight_bits_among_deeper_ones_do_not_change_the_range_and_are_mentioned() -> None:
    deep = [image.astype(np.uint16) for image in scenes(100, 3000, count=7)]
    plain = [image.astype(np.uint8) for image in scenes(0, 255, count=5)]
    facts = facts_of([*deep, *plain])
    assert facts.value_range == (0, 4095)
    assert facts.value_range_reason.startswith("7 of 12 images have more than 8 bits, with values from 100 to ")
    assert facts.value_range_reason.endswith("; images of 8 bits keep 0 to 255")


def test_data_without_deep_images_has_no_range() -> None:
    for images in (
        [image.astype(np.uint8) for image in scenes(0, 255)],
        [image.astype(np.uint8).astype(np.float32) / np.float32(255) for image in scenes(0, 255)],
        [Image.fromarray(image.astype(np.uint8)) for image in scenes(0, 255)],
    ):
        facts = facts_of(images)
        assert (facts.value_range, facts.value_range_reason) == ((), "")


def test_other_channels_each_have_their_own_range() -> None:
    images = scenes(0.1, 0.9, size=(9, 8, 5))
    gains, shifts = np.array([1, 4000, 30, 0.2, 200]), np.array([0, 0, 280, 0, -500])
    facts = facts_of([(image * gains + shifts).astype(np.float32) for image in images])
    assert facts.in_chans == 5
    stacked = np.stack(images) * gains + shifts
    white = np.array([1, stacked[..., 1].max(), stacked[..., 2].max(), stacked[..., 3].max(), stacked[..., 4].max()])
    black = np.array([0, 0, stacked[..., 2].min(), 0, stacked[..., 4].min()])
    np.testing.assert_allclose(np.reshape(facts.value_range, (5, 2)).T, [black, white], rtol=1e-6)


def test_range_does_not_depend_on_the_splits_or_the_order_of_the_files(tmp_path: Path) -> None:
    for number, image in enumerate(scenes(100, 3000, count=12)):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.tif").write_bytes(tiff((image / 7).astype(np.float32)))
    found = {survey(open_source(tmp_path), split_seed=seed).facts.value_range for seed in range(3)}
    assert len(found) == 1


def test_large_data_sets_are_measured_on_some_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_range, "MOST_IMAGES", 5)
    monkeypatch.setattr(value_range, "_VALUES_KEPT", 100)
    assert facts_of([image.astype(np.uint16) for image in scenes(300, 3900)]).value_range == (0, 4095)


def test_images_with_other_channels_than_most_are_left_out() -> None:
    images: list[Any] = [image.astype(np.uint8) for image in scenes(0, 255, size=(9, 8, 5))]
    images[3] = images[3][:, :, :3]
    facts = facts_of(images)
    assert (facts.in_chans, facts.num_train) == (5, 23)
    assert facts.skipped == (("list[3]", "3 channels, where most images of the data set have 5"),)
