"""A place moves a prediction only if the model reads the pixels there."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.use.explain.shortcut_check import moved_predictions
from vitreous.use.explain.shortcuts import places_near_border

ROWS, COLUMNS, PATCH_PX = 8, 12, 2
PREDICTED = np.repeat([0, 1, 2], [20, 15, 5])
PLACES = places_near_border(ROWS, COLUMNS)


def images() -> torch.Tensor:
    """Return images whose upper left pixel is brighter from class to class."""
    pixels = torch.full((len(PREDICTED), 3, PATCH_PX * ROWS, PATCH_PX * COLUMNS), 50, dtype=torch.uint8)
    pixels[:, :, 0, 0] = torch.from_numpy(PREDICTED * 100).to(torch.uint8)[:, None]
    return pixels


def moved(row: int, column: int, checked: list[int]) -> np.ndarray:
    """Return what moves the predictions of a model that reads one pixel."""
    pixels = images()
    pixels[:, :, row, column] = pixels[:, :, 0, 0]
    config = SimpleNamespace(num_tokens=2_000)  # batches of a few images

    def logits(given: torch.Tensor) -> torch.Tensor:
        return -(given[:, :1, row, column].float() - torch.tensor([0, 100, 200])).abs()

    sample: Any = SimpleNamespace(
        pixels=lambda positions: pixels[positions],
        model=SimpleNamespace(config=config),
        predictor=SimpleNamespace(logits=logits),
    )
    shown: list[tuple[int, int]] = []
    found = moved_predictions(sample, PREDICTED, checked, list(PLACES.values()), lambda *at: shown.append(at))
    assert not checked or shown[-1] == (np.isin(PREDICTED, checked).sum(),) * 2
    return found


@pytest.mark.parametrize(
    ("row", "column", "places"),
    [
        (0, 0, {"upper left corner", "upper edge", "left edge", "border"}),
        (15, 6, {"lower edge", "border"}),
        (3, 23, {"upper right corner", "right edge", "border"}),
        (8, 12, set()),
    ],
)
def test_every_place_with_the_pixel_that_the_model_reads_moves_all_predictions(
    row: int, column: int, places: set[str]
) -> None:
    found = moved(row, column, [0, 1, 2])
    for name, of_place in zip(PLACES, found.T, strict=True):
        assert of_place.tolist() == [name in places] * len(PREDICTED)


def test_images_of_classes_that_are_not_checked_count_as_no() -> None:
    found = moved(0, 0, [0, 2])
    assert found[:, list(PLACES).index("border")].tolist() == np.isin(PREDICTED, [0, 2]).tolist()
    assert not moved(0, 0, []).any()


def test_partners_have_another_class_and_are_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.Tensor] = []
    real = torch.where
    monkeypatch.setattr(torch, "where", lambda here, given, taking: taken.append(taking) or real(here, given, taking))
    moved(0, 0, [0, 1])
    first = [partners[:, 0, 0, 0].tolist() for partners in taken]
    moved(0, 0, [0, 1])
    assert first * 2 == [partners[:, 0, 0, 0].tolist() for partners in taken]
    classes = np.concatenate([np.array(partners) // 100 for partners in first[:: len(PLACES)]])
    assert (classes != PREDICTED[:35]).all()
    assert set(classes[20:]) == {0, 2}
