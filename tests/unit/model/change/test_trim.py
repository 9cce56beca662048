from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitreous.model import ModelConfig, VisionTransformer, build_model, create_model
from vitreous.model.change.trim import trim_last_block

VARIANTS = {
    "plain": {},
    "post-norm, layer scale": {"norm_order": "post", "layer_scale": 0.3},
    "distilled": {"distill_token": True},
    "registers, axial": {"num_registers": 2, "rotary": "axial", "position": "none"},
    "mixed": {"rotary": "mixed"},
    "relative bias": {"relative_bias": True},
    "locality": {"locality": True},
    "locality, relative bias": {"locality": True, "relative_bias": True},
    "gate, norms": {"attn_gate": True, "qk_norm": True, "key_bias": False},
    "drop path": {"drop_path_rate": 0.5},
    "little drop path": {"drop_path_rate": 0.04},
    "half of the patches": {"patch_drop_rate": 0.5, "rotary": "axial"},
    "one block": {"depth": 1},
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_trimmed_model_has_the_same_logits_gradients_and_randomness(variant, kernel, checkpointing):
    config = ModelConfig(
        img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=40, depth=3, num_heads=5, mlp_ratio=2.0
    )
    model = build_model(replace(config, **VARIANTS[variant]), generator=torch.Generator().manual_seed(0)).double()
    model = trim_last_block(model)
    model.set_grad_checkpointing(checkpointing)
    model.set_attention_kernel(kernel)
    assert {block.attn.kernel for block in model.encoder.blocks} == {kernel}
    images = torch.randn(6, 3, 12, 20, dtype=torch.float64, requires_grad=True)

    def run(forward):
        torch.manual_seed(3)
        logits = forward(images)
        gradients = torch.autograd.grad(logits.square().sum(), [images, *model.parameters()])
        return logits, gradients, torch.get_rng_state()

    logits, gradients, state = run(model)
    plain_logits, plain_gradients, plain_state = run(lambda images: model.forward_head(model.forward_features(images)))
    torch.testing.assert_close(logits, plain_logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, plain_gradients, rtol=0, atol=1e-11)
    torch.testing.assert_close(state, plain_state, rtol=0, atol=0)


def operations(forward):
    with FlopCounterMode(display=False) as counted:
        forward()
    return counted.get_total_flops()


def test_last_block_computes_only_the_tokens_that_are_read():
    model = trim_last_block(create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)).eval()
    images = torch.randn(2, 3, 12, 20)
    whole = operations(lambda: model.forward_features(images))
    fewer = operations(lambda: model.pooled(images))
    num, dim, hidden = 16, model.embed_dim, model.config.mlp_dim
    per_token = 2 * (dim**2 + 2 * dim * hidden) + 2 * 2 * num * dim  # projection, MLP, scores and values
    assert whole - fewer == 2 * (num - 1) * per_token


def test_everything_is_computed_where_the_difference_would_show():
    """With a hook in or after the last block, with dropout, and with a pool that reads patches."""
    images = torch.randn(2, 3, 12, 20)
    model = trim_last_block(create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)).eval()
    given = []
    for name in ("encoder", "encoder.norm", "encoder.blocks.3", "encoder.blocks.3.attn.proj", "encoder.blocks.3.mlp"):
        for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
            handle = getattr(model.get_submodule(name), register)(lambda *call: given.append(call[-1]))
            model(images).sum().backward()
            handle.remove()
            seen = given.pop()  # a tensor, or a tuple that begins with one
            assert (seen[0] if isinstance(seen, tuple) else seen).shape[1] == 16, (name, register)
    assert not given
    config = replace(model.config, pool="mean")
    assert type(trim_last_block(build_model(config))) is VisionTransformer
    assert operations(lambda: trim_last_block(build_model(config))(images)) > operations(lambda: model(images))
    dropping = trim_last_block(build_model(replace(model.config, proj_drop_rate=0.1)))
    assert operations(lambda: dropping(images)) > operations(lambda: dropping.eval()(images))
