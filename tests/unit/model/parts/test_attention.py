import math
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.parts.attention import Attention, KeylessBiasLinear, LocalityAttention
from vitreous.model.parts.relation import Relation, as_rotation, rotate


def make(kernel="auto", **rates):
    torch.manual_seed(0)
    return Attention.plain(embed_dim=20, num_heads=5, kernel=kernel, **rates).double()


def naive(attention, tokens):
    """softmax(QKᵀ/√d)V, one image, head, query and key at a time; return the output and the maps."""
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


@pytest.mark.parametrize(
    ("dtype", "training", "longest"),
    [(torch.float32, True, 64), (torch.float32, False, 16), (torch.bfloat16, True, 256), (torch.bfloat16, False, 256)],
)
def test_auto_is_explicit_only_for_short_sequences(dtype, training, longest):
    attention = make("auto").to(dtype)
    for length, fused_calls in ((longest, 0), (longest + 1, 1)):
        with (
            mock.patch.object(F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as fused,
            torch.set_grad_enabled(training),
        ):
            attention(torch.randn(2, length, 20, dtype=dtype))
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


def test_unknown_kernel_gets_the_nearest_name():
    with pytest.raises(UnknownNameError) as caught:
        Attention.plain(embed_dim=20, num_heads=5, kernel="explicid")
    assert str(caught.value) == "kernel=explicid: no such attention kernel; did you mean explicit?"


KERNELS = pytest.mark.parametrize("kernel", ["explicit", "sdpa"])


def build(kind=Attention, *, kernel="explicit", head_dim=4, gate=False, norm=None, keyless=False, drop_rate=0.0):
    """Build an attention with random weights everywhere: 5 heads of `head_dim`, tokens 20 wide."""
    torch.manual_seed(0)
    inner = 5 * head_dim
    attention = kind(
        num_heads=5,
        qkv=KeylessBiasLinear(20, inner) if keyless else nn.Linear(20, 3 * inner),
        proj=nn.Linear(inner, 20),
        qk_norms=(norm(head_dim, eps=1e-3), norm(head_dim, eps=1e-3)) if norm else None,
        gate=nn.Linear(20, inner) if gate else None,
        attn_drop_rate=drop_rate,
        kernel=kernel,
    ).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.4)
    return attention


def written_out(attention, tokens, *, turn=lambda heads: heads, bias=None, scale=None, hide_diagonal=False):
    """Compute the whole module, one image, head and query at a time; return the output and the maps."""
    (batch, length, _), inner = tokens.shape, attention.proj.in_features
    width = inner // 5
    weights, biases = attention.qkv.weight.split(inner), attention.qkv.bias
    if isinstance(attention.qkv, KeylessBiasLinear):
        biases = torch.cat([biases[:inner], torch.zeros(inner, dtype=biases.dtype), biases[inner:]])
    queries, keys, values = (
        (tokens @ weight.T + part).reshape(batch, length, 5, width).transpose(1, 2)
        for weight, part in zip(weights, biases.split(inner), strict=True)
    )
    if attention.q_norm is not None:
        queries, keys = normalized(queries, attention.q_norm), normalized(keys, attention.k_norm)
    queries, keys = turn(queries), turn(keys)
    bias = torch.zeros(1, 1, length, length, dtype=tokens.dtype) if bias is None else bias
    bias = bias.expand(batch, 5, length, length)
    scale = width**-0.5 if scale is None else scale
    joined, maps = torch.zeros(batch, length, inner).double(), torch.zeros(batch, 5, length, length).double()
    for image in range(batch):
        for head in range(5):
            for q in range(length):
                scores = (keys[image, head] @ queries[image, head, q]) * scale + bias[image, head, q]
                weights_ = scores.exp()
                if hide_diagonal:
                    weights_[q] = 0
                weights_ = weights_ / weights_.sum()
                maps[image, head, q] = weights_
                joined[image, q, head * width : (head + 1) * width] = weights_ @ values[image, head]
    if attention.gate is not None:
        joined = joined / (1 + (-(tokens @ attention.gate.weight.T + attention.gate.bias)).exp())
    return joined @ attention.proj.weight.T + attention.proj.bias, maps


def normalized(heads, norm):
    if isinstance(norm, nn.RMSNorm):
        return heads / ((heads**2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight
    centered = heads - heads.mean(-1, keepdim=True)
    return centered / ((centered**2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def check(attention, relation=None, **written):
    torch.manual_seed(1)
    tokens, relation = torch.randn(2, 7, 20, dtype=torch.float64), relation or Relation()
    with torch.no_grad():
        expected, maps = written_out(attention, tokens, **written)
        torch.testing.assert_close(attention(tokens, relation), expected, rtol=0, atol=1e-11)
        torch.testing.assert_close(attention.maps(tokens, relation), maps, rtol=0, atol=1e-11)


@KERNELS
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_queries_and_keys_are_normalized_head_by_head(kernel, norm):
    check(build(kernel=kernel, norm=norm))


@KERNELS
def test_gate_scales_the_output_of_the_heads_channel_by_channel(kernel):
    check(build(kernel=kernel, gate=True))


@KERNELS
@pytest.mark.parametrize("head_dim", [3, 6])
def test_head_dim_is_independent_of_the_width(kernel, head_dim):
    check(build(kernel=kernel, head_dim=head_dim, gate=True))


@KERNELS
def test_a_bias_is_added_to_the_scores_per_image_and_head(kernel):
    check(build(kernel=kernel), Relation(bias=(bias := torch.randn(2, 5, 7, 7).double())), bias=bias)
    check(build(kernel=kernel), Relation(bias=(bias := torch.randn(1, 5, 7, 7).double())), bias=bias)
    check(build(kernel=kernel), Relation(bias=(bias := torch.randn(2, 1, 1, 7).double())), bias=bias)


@KERNELS
def test_queries_and_keys_are_rotated_after_their_norm_and_values_are_not(kernel):
    relation = as_rotation(torch.randn(1, 5, 5, 2).double(), 2)
    check(build(kernel=kernel, norm=nn.LayerNorm), relation, turn=lambda heads: rotate(heads, relation))


@KERNELS
@pytest.mark.parametrize("biased", [False, True])
def test_locality_attention_has_a_temperature_and_hides_the_diagonal(kernel, biased):
    bias = torch.randn(2, 5, 7, 7).double() if biased else None
    attention = build(LocalityAttention, kernel=kernel)
    with torch.no_grad():
        attention.log_scale.fill_(math.log(0.7))
    check(attention, Relation(bias=bias), bias=bias, scale=0.7, hide_diagonal=True)
    maps = attention.maps(torch.randn(2, 7, 20).double())
    torch.testing.assert_close(maps.diagonal(dim1=-2, dim2=-1), torch.zeros(2, 5, 7).double(), rtol=0, atol=0)


@KERNELS
def test_single_token_attends_to_itself_under_locality(kernel):
    attention, token = build(LocalityAttention, kernel=kernel), torch.randn(2, 1, 20, dtype=torch.float64)
    torch.testing.assert_close(attention.maps(token), torch.ones(2, 5, 1, 1).double(), rtol=0, atol=0)
    torch.testing.assert_close(attention(token), written_out(attention, token)[0], rtol=0, atol=1e-12)


@KERNELS
def test_temperature_gets_the_right_gradient(kernel):
    attention, tokens = build(LocalityAttention, kernel=kernel), torch.randn(2, 7, 20, dtype=torch.float64)
    attention(tokens)[..., 3].sum().backward()
    up, down = (
        written_out(attention, tokens, scale=math.exp(attention.log_scale.item() + step), hide_diagonal=True)[0][
            ..., 3
        ].sum()
        for step in (1e-6, -1e-6)
    )
    torch.testing.assert_close(attention.log_scale.grad, (up - down).detach() / 2e-6, rtol=1e-5, atol=1e-7)


@KERNELS
def test_keyless_bias_equals_a_full_bias_with_zeros_for_the_keys(kernel):
    check(attention := build(kernel=kernel, keyless=True))
    full, tokens = build(kernel=kernel), torch.randn(2, 7, 20, dtype=torch.float64)
    for_queries, for_values = attention.qkv.bias.chunk(2)
    assert attention.qkv.bias.shape == (40,)
    state = attention.state_dict() | {"qkv.bias": torch.cat([for_queries, torch.zeros(20).double(), for_values])}
    full.load_state_dict(state)
    torch.testing.assert_close(attention(tokens), full(tokens), rtol=0, atol=0)
    state["qkv.bias"] = torch.cat([for_queries, torch.randn(20).double(), for_values])
    full.load_state_dict(state)
    torch.testing.assert_close(attention(tokens), full(tokens), rtol=0, atol=1e-12)  # why the keys need none


@pytest.mark.parametrize("kind", [Attention, LocalityAttention])
@pytest.mark.parametrize("relation", ["nothing", "bias", "rotation"])
def test_kernels_have_the_same_gradients_with_every_part(kind, relation):
    tokens, direction = torch.randn(2, 2, 7, 20, dtype=torch.float64).unbind()
    table, gradients = torch.randn(1, 5, 7, 7, dtype=torch.float64), []
    for kernel in ("explicit", "sdpa"):
        attention = build(kind, kernel=kernel, norm=nn.LayerNorm, gate=True, keyless=True, head_dim=6)
        leaf, learned = tokens.clone().requires_grad_(), table.clone().requires_grad_()
        beside = {
            "nothing": Relation(),
            "bias": Relation(bias=learned),
            "rotation": as_rotation(learned[..., :3], 0),
        }[relation]
        (attention(leaf, beside) * direction).sum().backward()
        gradients.append([leaf.grad, learned.grad, *(parameter.grad for parameter in attention.parameters())])
    for explicit, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(explicit, fused, rtol=0, atol=1e-11)
    assert (gradients[0][1] is None) is (relation == "nothing")


def test_maps_are_the_same_under_both_kernels():
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    relation = as_rotation(torch.randn(1, 5, 7, 2).double(), 0)._replace(bias=torch.randn(1, 5, 7, 7).double())
    fused, explicit = (build(kernel=kernel, drop_rate=0.4).maps(tokens, relation) for kernel in ("sdpa", "explicit"))
    torch.testing.assert_close(fused, explicit, rtol=0, atol=0)
    torch.testing.assert_close(fused.sum(-1), torch.ones(2, 5, 7).double(), rtol=0, atol=1e-12)


def test_output_is_dropped_in_training_only():
    attention, tokens = make(proj_drop_rate=0.25), torch.randn(40, 7, 20, dtype=torch.float64)
    plain = attention.eval()(tokens)
    dropped = attention.train()(tokens)
    gone = dropped == 0
    assert 0.2 < gone.double().mean() < 0.3
    torch.testing.assert_close(dropped[~gone], plain[~gone] / 0.75)
