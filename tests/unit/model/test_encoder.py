import torch
from torch import nn

from vitreous.model.attention import Attention
from vitreous.model.encoder import Block, Encoder
from vitreous.model.mlp import Mlp
from vitreous.model.residual import DropPath


def make_block(drop_path_rate=0.0):
    torch.manual_seed(0)
    block = Block(
        norm1=nn.LayerNorm(20, eps=1e-3),
        attn=Attention.plain(embed_dim=20, num_heads=5),
        norm2=nn.LayerNorm(20, eps=1e-3),
        mlp=Mlp(embed_dim=20, hidden_dim=33, act=nn.GELU()),
        drop_path=DropPath(drop_path_rate),
    ).double()
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return block


def layer_norm(norm, tokens):
    mean = tokens.mean(-1, keepdim=True)
    variance = ((tokens - mean) ** 2).mean(-1, keepdim=True)
    return (tokens - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def test_block_is_pre_norm_with_two_residual_paths():
    block, tokens = make_block(), torch.randn(2, 7, 20, dtype=torch.float64)
    middle = tokens + block.attn(layer_norm(block.norm1, tokens))
    expected = middle + block.mlp(layer_norm(block.norm2, middle))
    torch.testing.assert_close(block(tokens), expected, rtol=0, atol=1e-12)


def test_block_drops_each_branch_by_its_own_draw():
    block, tokens = make_block(drop_path_rate=0.5), torch.randn(1, 3, 20, dtype=torch.float64)
    with torch.no_grad():
        outcomes = block(tokens.expand(200, 3, 20))
    unchanged = (outcomes == tokens).all(dim=(1, 2)).sum()
    assert 20 < unchanged < 90  # a quarter of the images lose both branches
    assert len({round(float(outcome.sum()), 9) for outcome in outcomes}) == 4


def test_encoder_runs_its_blocks_in_order_and_normalises_their_sum():
    blocks = [make_block(), make_block()]
    nn.init.normal_(blocks[1].attn.proj.weight)
    encoder = Encoder(blocks, norm=nn.LayerNorm(20, eps=1e-3).double())
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    expected = layer_norm(encoder.norm, blocks[1](blocks[0](tokens)))
    torch.testing.assert_close(encoder(tokens), expected, rtol=0, atol=1e-12)


def test_encoder_drops_incoming_tokens_in_training_only():
    class Nothing(nn.Module):
        def forward(self, tokens, relation):
            return tokens

    encoder = Encoder([Nothing()], norm=nn.Identity(), drop_rate=0.25)
    tokens = torch.ones(2, 70, 20)
    kept = encoder(tokens)
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    torch.testing.assert_close(encoder.eval()(tokens), tokens, rtol=0, atol=0)
