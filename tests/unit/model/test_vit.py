import doctest
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitreous.errors import ShapeError
from vitreous.model import ModelConfig, build_model, create_model, vit


def test_the_docstrings_example_runs():
    results = doctest.testmod(vit)
    assert (results.attempted, results.failed) == (4, 0)


def test_forward_is_its_six_parts_one_after_the_other():
    model = create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)
    images = torch.randn(2, 3, 12, 20)
    tokens = model.encoder(model.prefix(model.position(model.tokenizer(images))))
    torch.testing.assert_close(model.forward_features(images), tokens, rtol=0, atol=0)
    torch.testing.assert_close(model(images), model.head(model.pool(tokens)), rtol=0, atol=1e-6)


def test_images_of_another_size_are_refused():
    model = create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)
    with pytest.raises(ShapeError, match="images 16x20 px"):
        model(torch.randn(2, 3, 16, 20))


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
def test_what_is_not_read_is_not_computed_and_changes_nothing(variant, kernel, checkpointing):
    config = ModelConfig(
        img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=40, depth=3, num_heads=5, mlp_ratio=2.0
    )
    model = build_model(replace(config, **VARIANTS[variant]), generator=torch.Generator().manual_seed(0)).double()
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


def test_the_last_block_computes_the_tokens_alone_that_are_read():
    model = create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4).eval()
    images = torch.randn(2, 3, 12, 20)
    whole = operations(lambda: model.forward_features(images))
    fewer = operations(lambda: model.pooled(images))
    num, dim, hidden = 16, model.embed_dim, model.config.mlp_dim
    per_token = 2 * (dim**2 + 2 * dim * hidden) + 2 * 2 * num * dim  # projection, MLP, scores and values
    assert whole - fewer == 2 * (num - 1) * per_token


def test_all_is_computed_where_it_would_be_missed():
    """By a hook at any place of the last block or behind it, by dropout, and by a pool that reads patches."""
    images = torch.randn(2, 3, 12, 20)
    model = create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4).eval()
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
    assert operations(lambda: build_model(config)(images)) > operations(lambda: model(images))
    dropping = build_model(replace(model.config, proj_drop_rate=0.1))
    assert operations(lambda: dropping(images)) > operations(lambda: dropping.eval()(images))
