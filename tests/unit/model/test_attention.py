import math
from unittest import mock

import pytest
import torch
from torch.nn import functional as F

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.attention import Attention


def make(kernel="auto", **rates):
    torch.manual_seed(0)
    return Attention.plain(embed_dim=20, num_heads=5, kernel=kernel, **rates).double()


def naive(attention, tokens):
    """softmax(QKᵀ/√d)V, one image, head, query and key at a time; returns the output and the maps."""
    batch, length, dim = tokens.shape
    heads, width = 5, dim // 5
    query_weight, key_weight, value_weight = attention.qkv.weight.split(dim)
    query_bias, key_bias, value_bias = attention.qkv.bias.split(dim)
    output, maps = torch.zeros_like(tokens), torch.zeros(batch, heads, length, length, dtype=tokens.dtype)
    for image in range(batch):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            queries = tokens[image] @ query_weight[part].T + query_bias[part]
            keys = tokens[image] @ key_weight[part].T + key_bias[part]
            values = tokens[image] @ value_weight[part].T + value_bias[part]
            for q in range(length):
                scores = [sum(queries[q] * keys[k]) / math.sqrt(width) for k in range(length)]
                total = sum(score.exp() for score in scores)
                for k in range(length):
                    maps[image, head, q, k] = scores[k].exp() / total
                    output[image, q, part] += maps[image, head, q, k] * values[k]
    return output @ attention.proj.weight.T + attention.proj.bias, maps


@pytest.mark.parametrize("kernel", ["auto", "explicit", "sdpa"])
@torch.no_grad()
def test_attention_equals_the_formula_written_out(kernel):
    attention = make(kernel)
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    expected, maps = naive(attention, tokens)
    torch.testing.assert_close(attention(tokens), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(attention.maps(tokens), maps, rtol=0, atol=1e-12)


def test_kernels_have_the_same_gradients():
    tokens, direction = torch.randn(2, 2, 7, 20, dtype=torch.float64).unbind()
    gradients = []
    for kernel in ("explicit", "sdpa"):
        attention, leaf = make(kernel), tokens.clone().requires_grad_()
        (attention(leaf) * direction).sum().backward()
        gradients.append([leaf.grad, *(parameter.grad for parameter in attention.parameters())])
    for explicit, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(explicit, fused, rtol=0, atol=1e-11)


def test_reading_the_maps_changes_neither_output_nor_randomness():
    attention = make(attn_drop_rate=0.3, proj_drop_rate=0.2)
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    torch.manual_seed(1)
    expected = attention(tokens)
    torch.manual_seed(1)
    maps = attention.maps(tokens)
    torch.testing.assert_close(attention(tokens), expected, rtol=0, atol=0)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 5, 7, dtype=torch.float64))


@pytest.mark.parametrize(("length", "fused_calls"), [(128, 0), (129, 1)])
def test_auto_writes_the_product_out_only_for_short_sequences(length, fused_calls):
    with mock.patch.object(F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as fused:
        make("auto")(torch.randn(2, length, 20, dtype=torch.float64))
    assert fused.call_count == fused_calls


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
@torch.no_grad()
def test_attention_dropout_keeps_the_expectation_and_stops_in_evaluation(kernel):
    attention = make(kernel, attn_drop_rate=0.4)
    tokens = torch.randn(1, 4, 20, dtype=torch.float64)
    draws = attention(tokens.expand(20_000, 4, 20))
    assert draws.std(dim=0).min() > 0.01
    torch.testing.assert_close(draws.mean(dim=0), make(kernel)(tokens)[0], rtol=0, atol=0.02)
    torch.testing.assert_close(attention.eval()(tokens), make(kernel)(tokens), rtol=0, atol=0)


def test_qkv_bias_can_be_left_out():
    assert Attention.plain(embed_dim=20, num_heads=5, qkv_bias=False).qkv.bias is None


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError) as caught:
        Attention.plain(embed_dim=22, num_heads=5)
    assert str(caught.value) == "num_heads=5: does not divide embed_dim=22 (remainder 2); choose a divisor"


def test_an_unknown_kernel_gets_the_nearest_name():
    with pytest.raises(UnknownNameError) as caught:
        Attention.plain(embed_dim=20, num_heads=5, kernel="explicid")
    assert str(caught.value) == "kernel=explicid: no such attention kernel; did you mean explicit?"
