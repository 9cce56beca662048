from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitreous.model import ModelConfig, VisionTransformer, build_model, create_model
from vitreous.model.change.lora import add_lora
from vitreous.model.change.merge import merge_tokens
from vitreous.model.change.trim import trim_last_block

CONFIG = ModelConfig(
    img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=40, depth=3, num_heads=5, mlp_ratio=2.0
)
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
    "low drop path rate": {"drop_path_rate": 0.04},
    "half of the patches": {"patch_drop_rate": 0.5, "rotary": "axial"},
    "one block": {"depth": 1},
}


def draw_images():
    return torch.randn(6, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def count_flops(forward):
    with FlopCounterMode(display=False) as counted:
        forward()
    return counted.get_total_flops()


def assert_trimming_changes_nothing(model):
    """Compare the forward pass of a trimmed model with the one that computes every token."""
    images = draw_images().requires_grad_()
    trainable = [images, *(parameter for parameter in model.parameters() if parameter.requires_grad)]

    def run(forward):
        torch.manual_seed(3)
        logits = forward(images)
        gradients = torch.autograd.grad(logits.square().sum(), trainable)
        return logits, gradients, torch.get_rng_state()

    logits, gradients, state = run(model)
    plain_logits, plain_gradients, plain_state = run(lambda images: model.forward_head(model.forward_features(images)))
    torch.testing.assert_close(logits, plain_logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, plain_gradients, rtol=0, atol=1e-11)
    torch.testing.assert_close(state, plain_state, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_trimmed_model_has_the_same_logits_gradients_and_random_numbers(variant, kernel, checkpointing):
    config = replace(CONFIG, **VARIANTS[variant])
    model = trim_last_block(build_model(config, generator=torch.Generator().manual_seed(0)).double())
    model.set_grad_checkpointing(checkpointing)
    model.set_attention_kernel(kernel)
    assert {block.attn.kernel for block in model.encoder.blocks} == {kernel}
    assert_trimming_changes_nothing(model)


@pytest.mark.parametrize("trim_first", [False, True])
def test_trimmed_model_with_lora_has_the_same_logits_and_gradients(trim_first):
    generator = torch.Generator().manual_seed(0)
    plain = build_model(CONFIG, generator=generator).double()
    model = trim_last_block(plain) if trim_first else plain
    add_lora(model, rank=3, alpha=7.0, generator=generator)
    model = trim_last_block(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("up.weight"):  # zero at first, so the updates would change nothing
                parameter.normal_(std=0.3, generator=generator)
    assert_trimming_changes_nothing(model)
    images = draw_images()
    torch.testing.assert_close(model(images), plain(images), rtol=0, atol=1e-12)
    assert count_flops(lambda: model(images)) < count_flops(lambda: plain(images))


def test_trimmed_model_computes_everything_after_its_pool_reads_patches():
    model = build_model(CONFIG, generator=torch.Generator().manual_seed(0)).double()
    trimmed, images = trim_last_block(model), draw_images()
    trimmed.reset_classifier(5, "mean")
    tokens = model.forward_features(images)
    expected = trimmed.head(tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(trimmed(images), expected, rtol=0, atol=0)
    assert trimmed(images).shape == (6, 5)
    assert model(images).shape == (6, 7)


def test_last_block_computes_only_the_tokens_that_are_read():
    model = trim_last_block(create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)).eval()
    images = torch.randn(2, 3, 12, 20)
    whole = count_flops(lambda: model.forward_features(images))
    fewer = count_flops(lambda: model.pooled(images))
    num, dim, hidden = 16, model.embed_dim, model.config.mlp_dim
    per_token = 2 * (dim**2 + 2 * dim * hidden) + 2 * 2 * num * dim  # output projection, MLP, scores and values
    assert whole - fewer == 2 * (num - 1) * per_token


def test_hooks_in_and_after_the_last_block_get_all_tokens():
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


def test_everything_is_computed_with_dropout_or_a_pool_that_reads_patches():
    images = torch.randn(2, 3, 12, 20)
    model = trim_last_block(create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)).eval()
    config = replace(model.config, pool="mean")
    assert type(trim_last_block(build_model(config))) is VisionTransformer
    assert count_flops(lambda: trim_last_block(build_model(config))(images)) > count_flops(lambda: model(images))
    dropping = trim_last_block(build_model(replace(model.config, proj_drop_rate=0.1)))
    assert count_flops(lambda: dropping(images)) > count_flops(lambda: dropping.eval()(images))


def test_merging_model_is_not_trimmed():
    merging = merge_tokens(create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4), 2)
    assert trim_last_block(merging) is merging


def test_hook_on_the_pool_sees_every_token():
    model = trim_last_block(create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)).eval()
    given = []
    model.pool.register_forward_pre_hook(lambda module, args: given.append(args[0].shape[1]))
    model(torch.randn(2, 3, 12, 20))
    assert given == [16]
