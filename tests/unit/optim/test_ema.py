import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitreous.optim.ema import Ema, ema_decay


def test_update_follows_the_formula() -> None:
    model = nn.Linear(3, 5).double()
    ema = Ema(model)
    before = {name: tensor.clone() for name, tensor in ema.model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    ema.update(0.7)
    for name, weights in model.state_dict().items():
        expected = 0.7 * before[name] + 0.3 * weights
        torch.testing.assert_close(ema.model.state_dict()[name], expected, rtol=1e-12, atol=1e-12)


def test_decay_of_zero_copies_the_weights_bit_for_bit() -> None:
    model = nn.Linear(3, 5)
    ema = Ema(model)
    nn.init.normal_(model.weight)
    ema.update(0.0)
    torch.testing.assert_close(ema.model.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_average_is_a_copy_without_gradients_and_does_not_change_the_model() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ema = Ema(model)
    ema.update(0.5)
    assert model.training
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_average_follows_weights_that_are_loaded_later() -> None:
    model = nn.Linear(3, 5)
    ema = Ema(model)
    model.load_state_dict(nn.Linear(3, 5).state_dict())
    ema.update(0.0)
    torch.testing.assert_close(ema.model.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("total_steps", "window_ratio", "window"), [(2_000, 0.05, 100), (400, 0.5, 200)])
def test_window_is_a_fraction_of_the_run(total_steps: int, window_ratio: float, window: int) -> None:
    late = ema_decay(total_steps * 9 // 10 + 10 * window, total_steps=total_steps, window_ratio=window_ratio)
    assert late == pytest.approx(1 - 1 / window)


def test_first_update_discards_the_initial_weights() -> None:
    assert ema_decay(0, total_steps=1_000_000, window_ratio=1.0) == 0.0


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 10_000), st.floats(1e-6, 1))
def test_decay_is_below_one_and_grows_with_the_run(step: int, total_steps: int, window_ratio: float) -> None:
    now, later = (ema_decay(s, total_steps=total_steps, window_ratio=window_ratio) for s in (step, step + 1))
    assert 0 <= now <= later < 1


@pytest.mark.parametrize("window_ratio", [0.05, 0.2])
def test_average_of_a_short_run_is_near_the_final_weights(window_ratio: float) -> None:
    model = nn.Linear(3, 5, bias=False)
    ema = Ema(model)
    initial = model.weight.detach().clone()
    goal = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for step in range(50):
        with torch.no_grad():
            model.weight += (goal - model.weight) * 0.1
        ema.update(ema_decay(step, total_steps=50, window_ratio=window_ratio))
    final = model.weight.detach()
    assert torch.dist(ema.model.weight, final) < 0.05 * torch.dist(initial, final)
    # An average with the usual decay of 0.999 would still be dominated by the initial weights.
    assert 0.999**50 > 0.95
