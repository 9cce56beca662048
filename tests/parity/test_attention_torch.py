"""Attention equals `torch.nn.MultiheadAttention` with the same weights."""

import pytest
import torch

from vitreous.model.parts.attention import Attention


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_output_maps_and_gradients_equal_torchs_multihead_attention(kernel):
    torch.manual_seed(0)
    ours = Attention.plain(embed_dim=20, num_heads=5, kernel=kernel).double()
    theirs = torch.nn.MultiheadAttention(20, 5, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    tokens, direction = torch.randn(2, 2, 7, 20, dtype=torch.float64).unbind()
    output = ours(tokens)
    expected, maps = theirs(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.maps(tokens), maps, rtol=0, atol=1e-12)

    (output * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(ours.qkv.weight.grad, theirs.in_proj_weight.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.qkv.bias.grad, theirs.in_proj_bias.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.proj.weight.grad, theirs.out_proj.weight.grad, rtol=0, atol=1e-12)
