"""Values of any method, Shapley values of super-tokens -> how well the method agrees with them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy import ndarray
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from vitreous.use.explain.relevance import PatchValues
from vitreous.use.explain.removal.super_tokens import super_tokens

PerImage = Float64[ndarray, " images"]

_SMALLEST_SPREAD = 1e-6
"""Differences between values, as a share of the largest value, that may be rounding errors."""


@dataclass(frozen=True)
class Agreement:
    """Correlation of the values of a method with Shapley values of super-tokens, for each image.

    Attributes:
        pearson: Pearson correlation, in [-1, 1]; 0 where `is_constant`.
        spearman: Spearman correlation, which compares only the order of the super-tokens; 0 where `is_constant`.
        is_constant: The method or the reference gives the same value to all patches, so there is no order to compare.
        limit: Pearson correlation with the reference that is expected for the exact Shapley values: 1 if the reference
            is exact, less if it has standard errors, 0 if these explain all of its differences.
    """

    pearson: PerImage
    spearman: PerImage
    is_constant: Bool[ndarray, " images"]
    limit: PerImage


def agreement(values: PatchValues, reference: PatchValues, errors: PatchValues | None = None) -> Agreement:
    """Sum the values of patches in each super-token, and correlate the sums with the reference.

    `errors` are the standard errors of the reference; None if it is exact.

    Raises:
        ConfigError: The reference has more rows or columns than there are patches.
    """
    rows, columns = reference.shape[1:]
    number_of = super_tokens((values.shape[1], values.shape[2]), (rows, columns))
    patches, exact = (found.detach().cpu().double().flatten(1) for found in (values, reference))
    sums = torch.zeros_like(exact).index_add(1, number_of, patches)
    # Super-tokens with more patches have larger sums, also if all patches have the same value.
    is_constant = _is_constant(patches) | _is_constant(sums) | _is_constant(exact)
    pairs = list(zip(sums.numpy(), exact.numpy(), is_constant, strict=True))
    noise = torch.zeros_like(exact) if errors is None else errors.cpu().double().flatten(1) ** 2
    # Errors of an image sum to 0, so their mean square is what they add to the variance of the reference.
    variance = (exact - exact.mean(dim=1, keepdim=True)).square().mean(dim=1)
    share = noise.mean(dim=1) / variance.clamp(min=torch.finfo(torch.float64).tiny)
    return Agreement(
        np.array([0.0 if flat else pearsonr(x, y).statistic for x, y, flat in pairs]),
        np.array([0.0 if flat else spearmanr(x, y).statistic for x, y, flat in pairs]),
        is_constant.numpy(),
        (1 - share).clamp(min=0).sqrt().numpy(),
    )


def _is_constant(values: Float64[Tensor, "images cells"]) -> Bool[Tensor, " images"]:
    low, high = values.aminmax(dim=1)
    return high - low <= _SMALLEST_SPREAD * values.abs().amax(dim=1)
