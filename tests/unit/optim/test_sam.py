import math

import pytest
import torch
from torch import nn

from vitreous.optim.sam import uphill


def model_with_gradients() -> nn.Sequential:
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).double()
    model[1].bias.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def test_perturbation_has_length_rho_along_the_gradient_of_all_parameters() -> None:
    model = model_with_gradients()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
    with uphill(model.parameters(), 0.3):
        for name, parameter in model.named_parameters():
            expected = before[name] + 0.3 * gradients[name] / norm if name in gradients else before[name]
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-11, atol=1e-11)
            assert parameter.grad is None


def test_weights_are_restored_bit_for_bit_even_after_an_error() -> None:
    model = model_with_gradients().float()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def fail_inside() -> None:
        with uphill(model.parameters(), 0.3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_inside()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_zero_or_non_finite_gradient_does_not_change_the_weights(value: float) -> None:
    model = model_with_gradients()
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    with uphill(model.parameters(), 0.3):
        assert bool(model[0].weight.isfinite().all()) is (value == 0.0)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_gradient_computed_inside_is_kept() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 2.0)
    (model.weight**3).sum().backward()
    with uphill(model.parameters(), 0.5):
        (model.weight**3).sum().backward()
    torch.testing.assert_close(model.weight.grad, torch.full((1, 1), 3 * 2.5**2, dtype=torch.float64))
