import pytest
import torch
from torch import nn

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.attention import Attention
from vitreous.model.parts.encoder import (
    Block,
    DropPath,
    Encoder,
    GatedMlp,
    LayerScale,
    Mlp,
    PostNormBlock,
    QuickGELU,
)


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


def test_block_is_pre_norm_with_two_residual_branches():
    block, tokens = make_block(), torch.randn(2, 7, 20, dtype=torch.float64)
    middle = tokens + block.attn(layer_norm(block.norm1, tokens))
    expected = middle + block.mlp(layer_norm(block.norm2, middle))
    torch.testing.assert_close(block(tokens), expected, rtol=0, atol=1e-12)


def test_each_branch_is_dropped_independently():
    block, tokens = make_block(drop_path_rate=0.5), torch.randn(1, 3, 20, dtype=torch.float64)
    with torch.no_grad():
        outcomes = block(tokens.expand(200, 3, 20))
    unchanged = (outcomes == tokens).all(dim=(1, 2)).sum()
    assert 20 < unchanged < 90  # about a quarter of the images, 50, skip both branches
    assert len({round(float(outcome.sum()), 9) for outcome in outcomes}) == 4


def test_encoder_runs_its_blocks_in_order_and_normalizes_the_result():
    blocks = [make_block(), make_block()]
    nn.init.normal_(blocks[1].attn.proj.weight)
    encoder = Encoder(blocks, norm=nn.LayerNorm(20, eps=1e-3).double())
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    expected = layer_norm(encoder.norm, blocks[1](blocks[0](tokens)))
    torch.testing.assert_close(encoder(tokens), expected, rtol=0, atol=1e-12)


def test_encoder_drops_incoming_tokens_in_training_only():
    class IdentityBlock(nn.Module):
        def forward(self, tokens, relation):
            return tokens

    encoder = Encoder([IdentityBlock()], norm=nn.Identity(), pos_drop_rate=0.25)
    tokens = torch.ones(2, 70, 20)
    kept = encoder(tokens)
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    torch.testing.assert_close(encoder.eval()(tokens), tokens, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Block, PostNormBlock])
def test_norm_and_layer_scale_act_on_the_branch(kind):
    block, tokens = make_block(kind=kind, layer_scale=True), torch.randn(2, 7, 20, dtype=torch.float64)
    if kind is Block:
        middle = tokens + block.ls1.gamma * block.attn(layer_norm(block.norm1, tokens))
        expected = middle + block.ls2.gamma * block.mlp(layer_norm(block.norm2, middle))
    else:
        middle = tokens + block.ls1.gamma * layer_norm(block.norm1, block.attn(tokens))
        expected = middle + block.ls2.gamma * layer_norm(block.norm2, block.mlp(middle))
    torch.testing.assert_close(tokens + block.attend(tokens), middle, rtol=0, atol=1e-12)
    torch.testing.assert_close(block(tokens), expected, rtol=0, atol=1e-12)


def test_post_norm_block_drops_each_branch_independently():
    block, tokens = make_block(0.5, PostNormBlock), torch.randn(1, 3, 20, dtype=torch.float64)
    with torch.no_grad():
        outcomes = block(tokens.expand(200, 3, 20))
    unchanged = (outcomes == tokens).all(dim=(1, 2)).sum()
    assert 20 < unchanged < 90
    assert len({round(float(outcome.sum()), 9) for outcome in outcomes}) == 4


def test_norm_pre_is_applied_before_the_first_block():
    encoder = Encoder([make_block()], norm=nn.Identity(), norm_pre=nn.LayerNorm(20, eps=1e-3).double())
    nn.init.normal_(encoder.norm_pre.weight)
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    expected = encoder.blocks[0](layer_norm(encoder.norm_pre, tokens))
    torch.testing.assert_close(encoder(tokens), expected, rtol=0, atol=1e-12)


def test_outputs_are_the_tokens_after_the_requested_blocks():
    blocks = [make_block(), make_block(), make_block()]
    encoder = Encoder(blocks, norm=nn.LayerNorm(20).double())
    tokens, outputs = torch.randn(2, 7, 20, dtype=torch.float64), {0: None, 2: None}
    encoder(tokens, outputs=outputs)
    torch.testing.assert_close(outputs[0], blocks[0](tokens), rtol=0, atol=0)
    torch.testing.assert_close(outputs[2], blocks[2](blocks[1](outputs[0])), rtol=0, atol=0)
    assert set(outputs) == {0, 2}


def test_depth_limits_the_number_of_blocks():
    ran = []
    encoder = Encoder([make_block(), make_block()], norm=nn.Identity())
    encoder.blocks[1].register_forward_hook(lambda *_: ran.append(1))
    tokens = torch.randn(2, 7, 20, dtype=torch.float64)
    torch.testing.assert_close(encoder(tokens, depth=1), encoder.blocks[0](tokens), rtol=0, atol=0)
    assert ran == []


RATES = {"pos_drop_rate": 0.2, "proj_drop_rate": 0.3, "attn_drop_rate": 0.1, "drop_path_rate": 0.4}


@pytest.mark.parametrize("relation", [{}, {"rotary": "mixed"}, {"relative_bias": True}, {"rotary": "axial"}])
@pytest.mark.parametrize("rates", [{}, RATES, RATES | {"patch_drop_rate": 0.4}])
def test_checkpointing_changes_neither_logits_nor_gradients_nor_random_numbers(relation, rates):
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


def test_checkpointing_runs_each_block_twice_in_training_and_once_in_evaluation():
    encoder, ran = Encoder([make_block(), make_block()], norm=nn.Identity()), []
    encoder.grad_checkpointing = True
    for block in encoder.blocks:
        block.attn.register_forward_pre_hook(lambda *_: ran.append(1))
    tokens = torch.randn(2, 7, 20, dtype=torch.float64, requires_grad=True)
    encoder(tokens).sum().backward()
    assert len(ran) == 4
    encoder.eval()(tokens).sum().backward()
    assert len(ran) == 6


def test_layer_scale_multiplies_each_channel():
    scale, tokens = LayerScale(10, initial=1e-4), torch.randn(2, 7, 10)
    torch.testing.assert_close(scale(tokens), tokens * 1e-4, rtol=0, atol=0)
    torch.nn.init.normal_(scale.gamma)
    expected = torch.stack([tokens[..., channel] * scale.gamma[channel] for channel in range(10)], dim=-1)
    torch.testing.assert_close(scale(tokens), expected, rtol=0, atol=0)


def make_mlp(act, **rates):
    torch.manual_seed(0)
    return Mlp(embed_dim=10, hidden_dim=23, act=act, **rates).double()


def test_mlp_with_gelu_equals_its_formula():
    mlp, tokens = make_mlp(nn.GELU()), torch.randn(2, 7, 10, dtype=torch.float64)
    hidden = tokens @ mlp.fc1.weight.T + mlp.fc1.bias
    activated = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(mlp(tokens), activated @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=0, atol=1e-12)


def test_mlp_with_relu_equals_its_formula():
    mlp, tokens = make_mlp(nn.ReLU()), torch.randn(2, 7, 10, dtype=torch.float64)
    hidden = (tokens @ mlp.fc1.weight.T + mlp.fc1.bias).clamp(min=0)
    torch.testing.assert_close(mlp(tokens), hidden @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=0, atol=1e-12)


def test_mlp_drops_after_both_layers_in_training_only():
    mlp, tokens = make_mlp(nn.ReLU(), proj_drop_rate=0.5), torch.randn(2, 7, 10, dtype=torch.float64)
    assert (mlp.drop1(torch.ones(1000)) == 0).any()
    assert (mlp(tokens) == 0).any()
    torch.testing.assert_close(mlp.eval()(tokens), make_mlp(nn.ReLU())(tokens), rtol=0, atol=0)


def make_gated_mlp(act, **changes):
    torch.manual_seed(0)
    return GatedMlp(embed_dim=10, hidden_dim=23, act=act, **changes).double()


@pytest.mark.parametrize("bias", [True, False])
def test_gated_mlp_is_swiglu_with_the_gate_in_the_first_rows(bias):
    mlp, tokens = make_gated_mlp(nn.SiLU(), bias=bias), torch.randn(2, 7, 10, dtype=torch.float64)
    (gate_weight, value_weight), zero = mlp.fc1.weight.split(23), torch.zeros((), dtype=torch.float64)
    gate_bias, value_bias = mlp.fc1.bias.split(23) if bias else (zero, zero)
    gate, value = tokens @ gate_weight.T + gate_bias, tokens @ value_weight.T + value_bias
    expected = (gate / (1 + (-gate).exp()) * value) @ mlp.fc2.weight.T + (mlp.fc2.bias if bias else zero)
    torch.testing.assert_close(mlp(tokens), expected, rtol=0, atol=1e-12)
    assert [p.ndim for p in mlp.parameters()] == ([2, 1, 2, 1] if bias else [2, 2])


def test_gated_mlp_drops_after_both_layers_in_training_only():
    mlp, tokens = make_gated_mlp(nn.SiLU(), proj_drop_rate=0.5), torch.randn(2, 7, 10, dtype=torch.float64)
    hidden = []
    mlp.fc2.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    assert (mlp(tokens) == 0).any()
    assert 0.4 < (hidden[0] == 0).double().mean() < 0.6
    torch.testing.assert_close(mlp.eval()(tokens), make_gated_mlp(nn.SiLU())(tokens), rtol=0, atol=0)


def test_mlp_without_bias_equals_its_formula():
    mlp, tokens = make_mlp(nn.ReLU(), bias=False), torch.randn(2, 7, 10, dtype=torch.float64)
    expected = (tokens @ mlp.fc1.weight.T).clamp(min=0) @ mlp.fc2.weight.T
    torch.testing.assert_close(mlp(tokens), expected, rtol=0, atol=1e-12)


def test_quick_gelu_equals_its_formula_and_is_close_to_gelu():
    values = torch.linspace(-6, 6, 101, dtype=torch.float64)
    activated = QuickGELU()(values)
    torch.testing.assert_close(activated, values / (1 + torch.exp(-1.702 * values)), rtol=0, atol=1e-12)
    torch.testing.assert_close(activated, nn.GELU()(values), rtol=0, atol=0.021)
