"""Sampled Shapley values against exact ones, and their standard errors against their spread over seeds."""

from typing import Any

import pytest
import torch
from scipy.stats import t
from tests.unit.use.explain.removal_models import draw_images, make_model

from vitreous.errors import ConfigError
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.removal.exact_shapley import exact_shapley
from vitreous.use.explain.removal.patch_removal import PatchRemoval
from vitreous.use.explain.target import Target

METHOD = METHODS["shapley"]


@pytest.mark.parametrize("kind", ["token", "mean", "relative_bias", "axial", "merged"])
def test_values_are_within_four_standard_errors_of_the_exact_ones(kind: str) -> None:
    model, images = make_model(kind), draw_images()
    exact = exact_shapley(model, images, Target(1)).values
    found = METHOD(model, images, Target(1), num_permutations=200)
    assert found.errors is not None
    assert ((found.values - exact).abs() <= 4 * found.errors + 1e-6).all()
    assert (found.errors < 0.2 * exact.abs().amax()).all(), "large errors would make this test pass for any values"


def test_intervals_contain_the_exact_value_as_often_as_they_should_and_errors_are_not_too_large() -> None:
    model, images, num_seeds, num_pairs = make_model(pool="mean"), draw_images(2), 120, 8
    exact = exact_shapley(model, images, Target(0)).values
    runs = [METHOD(model, images, Target(0), num_permutations=2 * num_pairs, seed=seed) for seed in range(num_seeds)]
    values = torch.stack([run.values for run in runs]).double()
    errors = torch.stack([run.errors for run in runs if run.errors is not None]).double()
    covered = ((values - exact).abs() <= t.ppf(0.95, num_pairs - 1) * errors).double().mean()
    assert 0.86 <= covered <= 0.94  # 0.9 is nominal
    torch.testing.assert_close(values.mean(dim=0), exact, rtol=0, atol=float(4 * errors.amax() / num_seeds**0.5))
    ratio = errors.square().mean() / values.var(dim=0).mean()
    assert 0.85 <= ratio <= 1.15


@pytest.mark.parametrize("changes", [{}, {"pool": "mean"}, {"pool": "map"}, {"distill_token": True}])
def test_values_sum_to_the_score_minus_that_of_no_patches(changes: dict[str, Any]) -> None:
    model, images = make_model(**changes), draw_images(3)
    removal = PatchRemoval(model, images)
    none_and_all = torch.tensor([[False] * 6, [True] * 6])
    ends = removal.scores(removal.fixed(Target()), none_and_all)
    found = METHOD(model, images, num_permutations=4)
    torch.testing.assert_close(found.values.double().sum(dim=(1, 2)), ends[:, 1] - ends[:, 0], rtol=0, atol=2e-6)


def test_pairs_of_opposite_orders_have_smaller_errors_than_independent_ones() -> None:
    """For a score of two patches that interact, the mean over an order and its reverse is exact."""
    model, image = make_model(img_size=(4, 8)), draw_images(1, (4, 8))
    found = METHOD(model, image, Target(2), num_permutations=4)
    exact = exact_shapley(model, image, Target(2)).values
    torch.testing.assert_close(found.values.double(), exact, rtol=1e-5, atol=1e-6)
    assert found.errors is not None
    assert found.errors.abs().max() < 1e-6


def test_values_of_an_image_depend_on_neither_the_others_nor_the_call() -> None:
    model, images = make_model(), draw_images(3)
    together, alone = METHOD(model, images), METHOD(model, images[1:2])
    torch.testing.assert_close(together.values[1:2], alone.values, rtol=0, atol=1e-6)
    assert not torch.equal(METHOD(model, images, seed=1).values, together.values)


def test_super_tokens_are_players_too() -> None:
    model, images = make_model(img_size=(12, 20), pool="mean"), draw_images(2, (12, 20))
    exact = exact_shapley(model, images, Target(4), cells=(2, 3)).values
    found = METHOD(model, images, Target(4), cells=(2, 3), num_permutations=100)
    assert found.errors is not None
    assert found.values.shape == (2, 2, 3)
    assert ((found.values - exact).abs() <= 4 * found.errors + 1e-6).all()


@pytest.mark.parametrize("number", [2, 5, 0, -4])
def test_orders_come_in_at_least_two_pairs(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"^num_permutations={number}: orders come in pairs, .*; use an even number"):
        METHOD(make_model(), draw_images(), num_permutations=number)


def test_the_cost_is_what_the_docstring_says() -> None:
    model, images, tokens = make_model(pool="mean"), draw_images(2), list[int]()
    model.encoder.register_forward_hook(lambda part, given, result: tokens.append(result.shape[0] * result.shape[1]))
    METHOD(model, images, num_permutations=16)
    in_images = sum(tokens) / 6 / 2
    assert in_images == pytest.approx(16 * 5 / 2 + 2)  # about 16 * 6 / 2, the whole image twice
