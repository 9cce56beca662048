"""Intervals, shuffled weights and counted operations agree with other implementations."""

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from vitreous.model import create_model
from vitreous.model.cost.count import count_flops as flops_of_config
from vitreous.model.vit import VisionTransformer
from vitreous.use.explain.check.cost import count_flops
from vitreous.use.explain.check.intervals import estimate, resampled_means
from vitreous.use.explain.check.randomized import with_shuffled_weights
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


def test_counted_operations_of_a_forward_pass_are_those_of_the_configuration(model: VisionTransformer) -> None:
    images = torch.zeros(2, 3, 8, 12)
    model.set_attention_kernel("explicit")
    wanted = pytest.approx(2 * flops_of_config(model.config), rel=0.01)
    with torch.no_grad():
        assert count_flops(lambda: model(images)) == wanted
    with torch.inference_mode():
        assert count_flops(lambda: model(images)) == wanted


def test_a_gradient_method_takes_about_three_forward_passes(model: VisionTransformer) -> None:
    images = torch.zeros(1, 3, 8, 12)
    passes = count_flops(lambda: METHODS["gradient-attention"](model, images)) / flops_of_config(model.config)
    assert 1.5 < passes < 4


def test_work_above_the_limit_is_stopped(model: VisionTransformer) -> None:
    done = []

    def work() -> None:
        for number in range(100):
            model(torch.zeros(1, 3, 8, 12))
            done.append(number)

    assert count_flops(work, limit=5.5 * flops_of_config(model.config)) == float("inf")
    assert 4 <= len(done) <= 6
