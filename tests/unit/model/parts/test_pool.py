import pytest
import torch
from torch import nn

from vitreous.model.parts.encoder import Mlp
from vitreous.model.parts.pool import AttentionPool, ClassTokenPool, MaxPool, MeanPool, SequencePool, TokenMeanPool


def test_class_token_pool_reads_the_first_token():
    tokens = torch.randn(2, 7, 10)
    torch.testing.assert_close(ClassTokenPool()(tokens), tokens[:, 0], rtol=0, atol=0)


def test_class_token_pool_of_two_puts_them_side_by_side():
    tokens = torch.randn(2, 7, 10)
    expected = torch.stack([torch.cat([image[0], image[1]]) for image in tokens])
    torch.testing.assert_close(ClassTokenPool(2)(tokens), expected, rtol=0, atol=0)


def test_mean_pool_averages_patches_and_leaves_prefix_tokens_out():
    tokens = torch.randn(2, 7, 10, dtype=torch.float64)
    torch.testing.assert_close(MeanPool()(tokens), sum(tokens.unbind(1)) / 7)
    torch.testing.assert_close(MeanPool(num_prefix_tokens=2)(tokens), sum(tokens.unbind(1)[2:]) / 5)


@pytest.mark.parametrize("count", [0, 3])
def test_max_pool_takes_the_largest_of_each_channel_among_patches(count):
    tokens = torch.randn(2, 7, 10)
    tokens[:, :count] = 100
    expected = torch.tensor([[max(image[count:, channel].tolist()) for channel in range(10)] for image in tokens])
    torch.testing.assert_close(MaxPool(count)(tokens), expected, rtol=0, atol=0)


def test_token_mean_pool_puts_the_class_token_beside_the_mean_of_patches():
    tokens = torch.randn(2, 7, 10, dtype=torch.float64)
    pooled = TokenMeanPool(num_prefix_tokens=3)(tokens)
    torch.testing.assert_close(pooled[:, :10], tokens[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(pooled[:, 10:], sum(tokens.unbind(1)[3:]) / 4)


@pytest.mark.parametrize("count", [0, 2])
@torch.no_grad()
def test_attention_pool_is_torchs_multihead_attention_by_one_query_and_an_mlp_beside_it(count):
    torch.manual_seed(0)
    mlp = Mlp(embed_dim=20, hidden_dim=33, act=nn.GELU())
    pool = AttentionPool(
        embed_dim=20, num_heads=5, norm=nn.LayerNorm(20, eps=1e-3), mlp=mlp, num_prefix_tokens=count
    ).double()
    for parameter in pool.parameters():
        nn.init.normal_(parameter, std=0.4)
    theirs = nn.MultiheadAttention(20, 5, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict({
        "in_proj_weight": torch.cat([pool.q.weight, pool.kv.weight]),
        "in_proj_bias": torch.cat([pool.q.bias, pool.kv.bias]),
        "out_proj.weight": pool.proj.weight,
        "out_proj.bias": pool.proj.bias,
    })  # fmt: skip
    tokens = torch.randn(2, 9, 20, dtype=torch.float64)
    patches = tokens[:, count:]
    gathered = theirs(pool.probe.expand(2, 1, 20), patches, patches, need_weights=False)[0][:, 0]
    centred = gathered - gathered.mean(-1, keepdim=True)
    normal = centred / ((centred**2).mean(-1, keepdim=True) + 1e-3).sqrt() * pool.norm.weight + pool.norm.bias
    hidden = normal @ mlp.fc1.weight.T + mlp.fc1.bias
    bent = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = gathered + bent @ mlp.fc2.weight.T + mlp.fc2.bias
    torch.testing.assert_close(pool(tokens), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("count", [0, 2])
@torch.no_grad()
def test_sequence_pool_weighs_patches_by_a_softmax_over_their_own_scores(count):
    pool, tokens = SequencePool(10, count).double(), torch.randn(2, 7, 10, dtype=torch.float64)
    expected = []
    for image in tokens:
        shares = [(patch @ pool.score.weight[0] + pool.score.bias[0]).exp() for patch in image[count:]]
        expected.append(sum(share * patch for share, patch in zip(shares, image[count:], strict=True)) / sum(shares))
    torch.testing.assert_close(pool(tokens), torch.stack(expected), rtol=0, atol=1e-12)
