"""Weights of 8 bits: how far they are from the original ones."""

import copy

import torch
from tests.unit.use.explain import models

from vitreous.use.export.page.int8 import to_int8, with_int8_weights

WEIGHT = torch.tensor([[1.0, -2.54, 0.012, 0.0], [0.0, 0.0, 0.0, 0.0], [3e-7, 1e-7, -2e-7, 0.0]])


def test_largest_value_of_each_row_becomes_127() -> None:
    values, scales = to_int8(WEIGHT)
    assert values.tolist() == [[50, -127, 1, 0], [0, 0, 0, 0], [127, 42, -85, 0]]
    torch.testing.assert_close(scales, torch.tensor([0.02, 0.0, 3e-7 / 127]))


def test_rounding_moves_no_weight_by_more_than_half_a_step() -> None:
    weight = torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(2))
    values, scales = to_int8(weight)
    moved = (values * scales[:, None] - weight.flatten(1)).abs()
    assert bool((moved <= scales[:, None] * 0.5001).all())


def test_rounded_model_keeps_norms_and_biases_and_leaves_the_original() -> None:
    model = models.make_model("conv")
    before = copy.deepcopy(model.state_dict())
    rounded = with_int8_weights(model).state_dict()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    changed = {name for name, values in before.items() if not torch.equal(values, rounded[name])}
    matrices = {name for name, values in before.items() if name.endswith("weight") and values.ndim > 1}
    assert changed == matrices


def test_weights_are_rounded_once() -> None:
    once = with_int8_weights(models.make_model())
    torch.testing.assert_close(with_int8_weights(once).state_dict(), once.state_dict(), rtol=1e-6, atol=0)
