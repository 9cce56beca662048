"""Intervals and shuffled weights agree with other implementations; the cost decides how much is computed."""

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from vitreous.model import create_model
from vitreous.model.vit import VisionTransformer
from vitreous.use.explain.check.compare import with_shuffled_weights
from vitreous.use.explain.check.cost import affordable, passes_of_shapley, passes_per_image
from vitreous.use.explain.check.intervals import estimate, resampled_means
from vitreous.use.explain.methods import METHODS


@pytest.fixture
def model() -> VisionTransformer:
    return create_model("vit_pico", num_classes=3, img_size=(8, 12), patch_size=4, seed=2).eval()


# Intervals.


def test_interval_is_that_of_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=60)
    found = estimate(values, resampled_means(values[:, None])[:, 0])
    by_scipy = bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((by_scipy.low, by_scipy.high), abs=0.03)


def test_differences_are_paired() -> None:
    draw = np.random.default_rng(3)
    hard = draw.normal(0, 5, 80)
    scores = np.stack([hard + 0.5 + draw.normal(0, 0.1, 80), hard], axis=1)
    means = resampled_means(scores)
    difference = estimate(scores[:, 0] - scores[:, 1], means[:, 0] - means[:, 1])
    assert difference.low > 0.4
    assert estimate(scores[:, 0], means[:, 0]).half_width > 10 * difference.half_width


def test_several_comparisons_have_wider_intervals() -> None:
    values = np.random.default_rng(4).normal(size=50)
    means = resampled_means(values[:, None])[:, 0]
    one, eight = (estimate(values, means, count) for count in (1, 8))
    assert 1.2 < eight.half_width / one.half_width < 1.6  # 2.73 / 1.96 for a normal distribution


def test_intervals_cover_the_mean_in_95_of_100_samples() -> None:
    draw, covered = np.random.default_rng(5), 0
    for _ in range(200):
        values = draw.normal(0.3, 1.0, 50)
        found = estimate(values, resampled_means(values[:, None])[:, 0])
        covered += found.low <= 0.3 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


# Shuffled weights.


def test_shuffling_keeps_the_values_of_each_tensor_but_not_their_places(model: VisionTransformer) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shuffled = with_shuffled_weights(model, seed=1).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(shuffled[name].flatten().sort().values, tensor.flatten().sort().values)
        assert not torch.equal(shuffled[name], tensor) or tensor.flatten().unique().numel() == 1
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(with_shuffled_weights(model, seed=1)(images), model(images))


# Cost.


@pytest.fixture
def vit_small() -> VisionTransformer:
    return create_model("vit_small_patch16_224", num_classes=10)


def test_number_of_images_and_steps_is_chosen_by_cost(model: VisionTransformer, vit_small: VisionTransformer) -> None:
    one = [METHODS["grad-cam"]]
    assert affordable(model, one, 1_000, None) == (200, 0)
    assert affordable(model, one, 60, 37) == (37, 0)
    count, coarseness = affordable(vit_small, METHODS.values(), 1_000, None)
    assert (count, coarseness) == (20, 2)
    assert affordable(vit_small, METHODS.values(), 1_000, 500) == (500, 2)
    finest = affordable(vit_small, one, 1_000, 10)
    assert finest == (10, 0)


def test_a_check_of_a_small_vit_on_40_images_takes_fewer_than_16_000_forward_passes(
    vit_small: VisionTransformer,
) -> None:
    """Seven methods, two references, and Shapley values; with the published steps for each map, it would be 50,000."""
    methods = [method for method in METHODS.values() if method.cost(196) <= 120]
    assert len(methods) == 7
    assert affordable(vit_small, methods, 1_000, 40)[1] == 2
    passes = 40 * passes_per_image(vit_small, methods, 2) + passes_of_shapley(vit_small)
    assert 12_000 < passes < 16_000
