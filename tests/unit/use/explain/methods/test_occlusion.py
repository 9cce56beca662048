"""Occlusion against a loop over patches."""

from typing import Any

import pytest
import torch
from tests.unit.use.explain.removal_models import draw_images, logits_of, make_model
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.target import Target

METHOD = METHODS["occlusion"]


def falls(model: Any, image: Tensor, label: int, removed: list[int]) -> float:
    """Return by how much a logit falls without some patches."""
    rest = [number for number in range(6) if number not in removed]
    return float(logits_of(model, image, list(range(6)))[label] - logits_of(model, image, rest)[label])


@pytest.mark.parametrize("kind", ["token", "mean", "relative_bias", "dinov3", "merged"])
def test_value_is_the_fall_of_the_score_without_the_patch(kind: str) -> None:
    model, images = make_model(kind), draw_images()
    found = METHOD(model, images, Target([3, 1]))
    for image, label, values in zip(images, [3, 1], found.values, strict=True):
        expected = torch.tensor([falls(model, image[None], label, [number]) for number in range(6)]).view(2, 3)
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    assert found.errors is None
    assert found.values.dtype == torch.float32


def test_with_a_window_the_value_is_the_mean_over_the_squares_that_contain_the_patch() -> None:
    model, image = make_model(), draw_images(1)
    left, right = falls(model, image, 2, [0, 1, 3, 4]), falls(model, image, 2, [1, 2, 4, 5])
    row = [left, (left + right) / 2, right]
    got = METHOD(model, image, Target(2), window=2).values[0]
    torch.testing.assert_close(got, torch.tensor([row, row]), rtol=1e-4, atol=1e-5)


def test_explains_the_predicted_class_and_differences_of_classes() -> None:
    model, images = make_model(), draw_images(3)
    predicted = model(images).argmax(dim=1).tolist()
    torch.testing.assert_close(METHOD(model, images).values, METHOD(model, images, Target(predicted)).values)
    first, second, both = (METHOD(model, images, t).values for t in (Target(0), Target(4), Target(0, versus=4)))
    torch.testing.assert_close(both, first - second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [0, 3, -1])
def test_window_larger_than_the_grid_is_an_error(window: int) -> None:
    with pytest.raises(ConfigError, match=rf"^window={window}: the model has 2x3 patches; use a number from 1 to 2$"):
        METHOD(make_model(), draw_images(), window=window)


def test_the_only_patch_is_worth_the_difference_to_no_patch() -> None:
    model, image = make_model(img_size=(4, 4), pool="mean"), draw_images(1, (4, 4))
    expected = model(image)[0, 1] - model.head.bias[1]
    assert float(METHOD(model, image, Target(1)).values) == pytest.approx(expected.item(), rel=1e-5)
