"""Correlations with Shapley values against numpy and ranks; constant values; noisy references."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from vitreous.errors import ConfigError
from vitreous.use.explain.removal.agreement import agreement


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_values_are_summed_in_each_super_token_and_correlated() -> None:
    values, reference = draw(3, 5, 6), draw(3, 2, 3, seed=1)
    found = agreement(values, reference)
    for number in range(3):
        sums = [
            float(values[number, rows, columns].sum())
            for rows in (slice(0, 3), slice(3, 5))
            for columns in (slice(0, 2), slice(2, 4), slice(4, 6))
        ]
        exact = reference[number].flatten().numpy()
        assert found.pearson[number] == pytest.approx(np.corrcoef(sums, exact)[0, 1], abs=1e-6)
        ranks = np.corrcoef(rankdata(sums), rankdata(exact))[0, 1]
        assert found.spearman[number] == pytest.approx(ranks, abs=1e-12)
    assert found.limit.tolist() == [1, 1, 1]


def test_agreement_ignores_scale_and_offset_and_notices_the_sign() -> None:
    reference = draw(2, 4, 4)
    found = agreement(torch.stack([3 * reference[0] + 7, -reference[1]]), reference)
    assert found.pearson == pytest.approx([1, -1])
    assert found.spearman == pytest.approx([1, -1])


def test_a_power_of_the_values_has_the_same_order() -> None:
    reference = draw(1, 4, 4).abs()
    found = agreement(reference**3, reference)
    assert found.spearman[0] == pytest.approx(1)
    assert found.pearson[0] < 0.99


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1e30, 1e-30])
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (14, 14)])
def test_equal_values_agree_with_nothing(value: float, size: tuple[int, int]) -> None:
    """Also where super-tokens differ in size, so that the sums of equal values are not equal."""
    values = torch.stack([torch.full(size, value), draw(*size)])
    found = agreement(values, draw(2, 4, 4, seed=1))
    assert found.is_constant.tolist() == [True, False]
    assert found.pearson[0] == 0 == found.spearman[0]
    assert found.pearson[1] != 0


def test_a_constant_reference_agrees_with_nothing() -> None:
    found = agreement(draw(1, 4, 4), torch.zeros(1, 4, 4))
    assert found.pearson.tolist() == [0] == found.spearman.tolist()
    assert found.is_constant.tolist() == [True]


def test_one_super_token_has_nothing_to_compare() -> None:
    assert agreement(draw(2, 3, 3), draw(2, 1, 1)).is_constant.tolist() == [True, True]


def test_limit_is_the_correlation_of_exact_values_with_a_reference_that_has_errors() -> None:
    """Errors of sampled Shapley values sum to 0 in each image, because the values sum to a difference of scores."""
    exact = draw(500, 4, 4)
    noise = 0.4 * draw(500, 4, 4, seed=1)
    noise -= noise.mean(dim=(1, 2), keepdim=True)
    errors = torch.full_like(noise, 0.4 * (15 / 16) ** 0.5)
    found = agreement(exact, exact + noise, errors)
    assert found.limit.mean() == pytest.approx(found.pearson.mean(), abs=0.01)
    assert found.limit.mean() == pytest.approx((1 / 1.16) ** 0.5, abs=0.01)


def test_a_reference_of_nothing_but_errors_has_the_limit_0() -> None:
    reference = draw(1, 2, 2)
    assert agreement(draw(1, 2, 2, seed=1), reference, 9 * torch.ones(1, 2, 2)).limit.tolist() == [0]


def test_no_images_give_no_correlations() -> None:
    found = agreement(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))
    assert found.pearson.shape == (0,) == found.limit.shape


def test_a_reference_with_more_super_tokens_than_patches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^cells=4x4: cannot divide 3x9 patches; use 1 to 3 rows and 1 to 9 columns"):
        agreement(draw(1, 3, 9), draw(1, 4, 4))
