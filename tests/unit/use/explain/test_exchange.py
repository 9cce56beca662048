"""A class follows a place only if the model reads the pixels there."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.use.explain.exchange import confirmed
from vitreous.use.explain.shortcuts import Shortcut, Shortcuts

SIDE, CLASSES = 8, ("cat", "dog")
LABELS = np.repeat([0, 1], 20)


def sample() -> Any:
    """Return gray images whose upper left and middle pixels are bright for dogs only."""
    pixels = torch.full((len(LABELS), 3, 2 * SIDE, 2 * SIDE), 50, dtype=torch.uint8)
    pixels[20:, :, 0, 0] = pixels[20:, :, SIDE, SIDE] = 250
    return SimpleNamespace(pixels=lambda positions: pixels[positions])


def predictor(row: int, column: int) -> Any:
    """Return a predictor that reads one pixel."""

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        is_dog = pixels[:, 0, row, column] > 150
        return torch.stack([~is_dog, is_dog], dim=1).float()

    config = SimpleNamespace(grid_size=(SIDE, SIDE), num_tokens=SIDE * SIDE)
    return SimpleNamespace(logits=logits, classes=CLASSES, model=SimpleNamespace(config=config))


def shortcut(class_name: str, place: str) -> Shortcut:
    images = tuple(np.flatnonzero(CLASSES.index(class_name) == LABELS).tolist())
    return Shortcut(class_name, place, (0, 0, 0.25, 0.25), 0.06, 0.5, images, 20, 0.0, 0.001)


@pytest.mark.parametrize("class_name", CLASSES)
def test_a_place_that_the_model_reads_is_confirmed(class_name: str) -> None:
    suspected = Shortcuts((shortcut(class_name, "upper left corner"),), 2, ())
    found = confirmed(suspected, sample(), predictor(0, 0), LABELS)
    assert [each.followed for each in found.found] == [1.0]
    assert found.dismissed == ()
    assert "it moves the prediction in 100% of cases" in found.sentences[0]


@pytest.mark.parametrize(("pixel", "place"), [((SIDE, SIDE), "upper left corner"), ((0, 0), "lower right corner")])
def test_a_place_that_the_model_does_not_read_is_dismissed_with_the_reason(pixel: tuple[int, int], place: str) -> None:
    suspected = Shortcuts((shortcut("dog", place),), 2, ())
    found = confirmed(suspected, sample(), predictor(*pixel), LABELS)
    assert (found.found, [each.followed for each in found.dismissed]) == ((), [0.0])
    assert "none of 2 classes relies on a place near the border" in found.sentences[0]
    assert f"relevance is concentrated on the {place} for dog, but predictions hardly change" in found.sentences[1]
