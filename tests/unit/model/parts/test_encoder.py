import pytest
import torch
from torch import nn

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.attention import Attention
from vitreous.model.parts.encoder import Block, DropPath, Encoder, LayerScale, Mlp, PostNormBlock


def make_block(drop_path_rate=0.0, kind=Block, layer_scale=False):
    torch.manual_seed(0)
    block = kind(
        norm1=nn.LayerNorm(20, eps=1e-3),
        attn=Attention.plain(embed_dim=20, num_heads=5),
        norm2=nn.LayerNorm(20, eps=1e-3),
        mlp=Mlp(embed_dim=20, hidden_dim=33, act=nn.GELU()),
        drop_path=DropPath(drop_path_rate),
        ls1=LayerScale(20, initial=0.1) if layer_scale else None,
        ls2=LayerScale(20, initial=0.1) if layer_scale else None,
    ).double()
    for part in (block.norm1, block.norm2, block.ls1, block.ls2):
        for parameter in part.parameters():
            nn.init.normal_(parameter)
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


def test_each_branch_is_dropped_independently():
    block, tokens = make_block(drop_path_rate=0.5), torch.randn(1, 3, 20, dtype=torch.float64)
    with torch.no_grad():
        outcomes = block(tokens.expand(200, 3, 20))
    unchanged = (outcomes == tokens).all(dim=(1, 2)).sum()
    assert 20 < unchanged < 90  # a quarter of the images lose both branches
    assert len({round(float(outcome.sum()), 9) for outcome in outcomes}) == 4


def test_encoder_runs_its_blocks_in_order_and_normalizes_their_sum():
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

    encoder = Encoder([Nothing()], norm=nn.Identity(), pos_drop_rate=0.25)
    tokens = torch.ones(2, 70, 20)
    kept = encoder(tokens)
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    torch.testing.assert_close(encoder.eval()(tokens), tokens, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Block, PostNormBlock])
def test_layer_scale_and_norm_act_on_the_branch_in_this_order(kind):
    block, tokens = make_block(kind=kind, layer_scale=True), torch.randn(2, 7, 20, dtype=torch.float64)
    if kind is Block:
        middle = tokens + block.ls1.gamma * block.attn(layer_norm(block.norm1, tokens))
        expected = middle + block.ls2.gamma * block.mlp(layer_norm(block.norm2, middle))
    else:
        middle = tokens + block.ls1.gamma * layer_norm(block.norm1, block.attn(tokens))
        expected = middle + block.ls2.gamma * layer_norm(block.norm2, block.mlp(middle))
    torch.testing.assert_close(tokens + block.attend(tokens), middle, rtol=0, atol=1e-12)
    torch.testing.assert_close(block(tokens), expected, rtol=0, atol=1e-12)


def test_post_norm_block_drops_whole_branches_after_their_norm():
    block, tokens = make_block(0.5, PostNormBlock), torch.randn(1, 3, 20, dtype=torch.float64)
    with torch.no_grad():
        outcomes = block(tokens.expand(200, 3, 20))
    unchanged = (outcomes == tokens).all(dim=(1, 2)).sum()
    assert 20 < unchanged < 90
    assert len({round(float(outcome.sum()), 9) for outcome in outcomes}) == 4


def test_norm_pre_comes_before_the_first_block():
    encoder = Encoder([make_block()], norm=nn.Identity(), norm_pre=nn.LayerNorm(20, eps=1e-3).double())
    nn.init.normal_(encoder.norm_pre.weight)
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    expected = encoder.blocks[0](layer_norm(encoder.norm_pre, tokens))
    torch.testing.assert_close(encoder(tokens), expected, rtol=0, atol=1e-12)


def test_outputs_are_the_tokens_after_the_requested_blocks_before_the_final_norm():
    blocks = [make_block(), make_block(), make_block()]
    encoder = Encoder(blocks, norm=nn.LayerNorm(20).double())
    tokens, outputs = torch.randn(2, 7, 20, dtype=torch.float64), {0: None, 2: None}
    encoder(tokens, outputs=outputs)
    torch.testing.assert_close(outputs[0], blocks[0](tokens), rtol=0, atol=0)
    torch.testing.assert_close(outputs[2], blocks[2](blocks[1](outputs[0])), rtol=0, atol=0)
    assert set(outputs) == {0, 2}


def test_depth_runs_only_the_first_blocks():
    ran = []
    encoder = Encoder([make_block(), make_block()], norm=nn.Identity())
    encoder.blocks[1].register_forward_hook(lambda *_: ran.append(1))
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    torch.testing.assert_close(encoder(tokens, depth=1), encoder.blocks[0](tokens), rtol=0, atol=0)
    assert ran == []


RATES = {"pos_drop_rate": 0.2, "proj_drop_rate": 0.3, "attn_drop_rate": 0.1, "drop_path_rate": 0.4}


@pytest.mark.parametrize("relation", [{}, {"rotary": "mixed"}, {"relative_bias": True}, {"rotary": "axial"}])
@pytest.mark.parametrize("rates", [{}, RATES, RATES | {"patch_drop_rate": 0.4}])
def test_checkpointing_changes_neither_outputs_nor_gradients_nor_randomness(relation, rates):
    shape = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 20, "depth": 3}
    config = ModelConfig(**shape, num_heads=5, layer_scale=0.1, **relation, **rates)
    model = build_model(config, generator=torch.Generator().manual_seed(0)).double()
    images, outcomes = torch.randn(2, 3, 12, 20, dtype=torch.float64), []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(5)
        logits = model(images)
        logits[:, 2].sum().backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        outcomes.append([logits.detach(), torch.rand(3), *gradients])
    for plain, checkpointed in zip(*outcomes, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=0, atol=0)


def test_checkpointing_computes_each_block_twice_in_training_and_once_in_evaluation():
    encoder, ran = Encoder([make_block(), make_block()], norm=nn.Identity()), []
    encoder.grad_checkpointing = True
    for block in encoder.blocks:
        block.attn.register_forward_pre_hook(lambda *_: ran.append(1))
    tokens = torch.randn(2, 7, 20, dtype=torch.float64, requires_grad=True)
    encoder(tokens).sum().backward()
    assert len(ran) == 4
    encoder.eval()(tokens).sum().backward()
    assert len(ran) == 6
