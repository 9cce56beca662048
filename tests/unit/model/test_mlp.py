import torch
from torch import nn

from vitreous.model.mlp import Mlp


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
