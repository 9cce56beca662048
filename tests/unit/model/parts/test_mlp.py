import pytest
import torch
from torch import nn

from vitreous.model.parts.encoder import GatedMlp, Mlp, QuickGELU


def make(act, **rates):
    torch.manual_seed(0)
    return Mlp(embed_dim=10, hidden_dim=23, act=act, **rates).double()


def test_mlp_equals_its_formula_with_the_exact_gelu():
    mlp, tokens = make(nn.GELU()), torch.randn(2, 7, 10, dtype=torch.float64)
    hidden = tokens @ mlp.fc1.weight.T + mlp.fc1.bias
    bent = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(mlp(tokens), bent @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=0, atol=1e-12)


def test_mlp_equals_its_formula_with_relu():
    mlp, tokens = make(nn.ReLU()), torch.randn(2, 7, 10, dtype=torch.float64)
    hidden = (tokens @ mlp.fc1.weight.T + mlp.fc1.bias).clamp(min=0)
    torch.testing.assert_close(mlp(tokens), hidden @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=0, atol=1e-12)


def test_dropout_follows_both_layers_and_stops_in_evaluation():
    mlp, tokens = make(nn.ReLU(), proj_drop_rate=0.5), torch.randn(2, 7, 10, dtype=torch.float64)
    assert (mlp.drop1(torch.ones(1000)) == 0).any()
    assert (mlp(tokens) == 0).any()
    torch.testing.assert_close(mlp.eval()(tokens), make(nn.ReLU())(tokens), rtol=0, atol=0)


def gated(act, **changes):
    torch.manual_seed(0)
    return GatedMlp(embed_dim=10, hidden_dim=23, act=act, **changes).double()


@pytest.mark.parametrize("bias", [True, False])
def test_gated_mlp_is_swiglu_with_the_gate_in_the_first_rows(bias):
    mlp, tokens = gated(nn.SiLU(), bias=bias), torch.randn(2, 7, 10, dtype=torch.float64)
    (gate_weight, value_weight), zero = mlp.fc1.weight.split(23), torch.zeros((), dtype=torch.float64)
    gate_bias, value_bias = mlp.fc1.bias.split(23) if bias else (zero, zero)
    gate, value = tokens @ gate_weight.T + gate_bias, tokens @ value_weight.T + value_bias
    expected = (gate / (1 + (-gate).exp()) * value) @ mlp.fc2.weight.T + (mlp.fc2.bias if bias else zero)
    torch.testing.assert_close(mlp(tokens), expected, rtol=0, atol=1e-12)
    assert [p.ndim for p in mlp.parameters()] == ([2, 1, 2, 1] if bias else [2, 2])


def test_gated_mlp_drops_after_both_layers_and_stops_in_evaluation():
    mlp, tokens = gated(nn.SiLU(), proj_drop_rate=0.5), torch.randn(2, 7, 10, dtype=torch.float64)
    hidden = []
    mlp.fc2.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    assert (mlp(tokens) == 0).any()
    assert 0.4 < (hidden[0] == 0).double().mean() < 0.6
    torch.testing.assert_close(mlp.eval()(tokens), gated(nn.SiLU())(tokens), rtol=0, atol=0)


def test_mlp_without_biases_has_none():
    mlp, tokens = make(nn.ReLU(), bias=False), torch.randn(2, 7, 10, dtype=torch.float64)
    expected = (tokens @ mlp.fc1.weight.T).clamp(min=0) @ mlp.fc2.weight.T
    torch.testing.assert_close(mlp(tokens), expected, rtol=0, atol=1e-12)


def test_quick_gelu_is_its_formula_and_near_the_exact_one():
    values = torch.linspace(-6, 6, 101, dtype=torch.float64)
    bent = QuickGELU()(values)
    torch.testing.assert_close(bent, values / (1 + torch.exp(-1.702 * values)), rtol=0, atol=1e-12)
    torch.testing.assert_close(bent, nn.GELU()(values), rtol=0, atol=0.021)
