import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.cost.count import count_flops, count_parameters, count_parts


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vit_tiny_patch16_224", 5_717_416),
        ("vit_small_patch16_224", 22_050_664),
        ("vit_base_patch16_224", 86_567_656),
        ("vit_base_patch32_224", 88_224_232),
        ("vit_large_patch16_224", 304_326_632),
        ("vit_huge_patch14_224", 632_045_800),
    ],
)
def test_parameter_counts_equal_the_published_ones(name, parameters):
    config = config_for(name)
    assert count_parameters(config) == parameters
    assert sum(tensor.numel() for tensor in build_model(config, device="meta").parameters()) == parameters


@st.composite
def configs(draw):
    stem = draw(st.sampled_from(["linear", "linear", "shifted", "conv", "cct"]))
    patch_size = draw(st.integers(1, 4)) if stem in ("linear", "shifted") else draw(st.sampled_from([2, 4, 8]))
    num_heads, embed_of = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    rotary = draw(st.sampled_from(["none", "none", "axial", "mixed", "dinov3"]))
    position = draw(st.sampled_from(["learned", "sinusoidal", "sincos2d", "sincos2d_big_vision", "none"]))
    of = 4 if rotary != "none" or position.startswith("sincos2d") else 1
    pool = draw(st.sampled_from(["token", "mean", "max", "token_mean", "map", "sequence"]))
    reads = pool in ("token", "token_mean")
    return ModelConfig(
        stem_ratio=draw(st.sampled_from([0.5, 1.0])),
        img_size=(patch_size * draw(st.integers(1, 5)), patch_size * draw(st.integers(1, 5))),
        patch_size=patch_size,
        in_chans=draw(st.integers(1, 4)),
        num_classes=draw(st.integers(0, 9)),
        embed_dim=num_heads * of * embed_of,
        depth=draw(st.integers(1, 3)),
        num_heads=num_heads,
        mlp_ratio=draw(st.floats(1.0, 5.0)),
        qkv_bias=draw(st.booleans()),
        stem=stem,
        patch_bias=draw(st.booleans()),
        patch_norm=draw(st.booleans()),
        dynamic_img_size=False,
        position=position,
        rotary=rotary,
        relative_bias=draw(st.booleans()) and rotary == "none",
        class_token=draw(st.sampled_from([None, True] if reads else [None, True, False])),
        distill_token=draw(st.booleans()) and pool == "token",
        num_registers=draw(st.integers(0, 3)),
        prefix_position=draw(st.sampled_from(["all", "class", "none"])),
        embed_norm=draw(st.booleans()),
        head_dim=draw(st.sampled_from([None, 8])),
        key_bias=draw(st.booleans()),
        proj_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        locality=draw(st.booleans()),
        attn_gate=draw(st.booleans()),
        mlp=draw(st.sampled_from(["plain", "gated"])),
        mlp_bias=draw(st.booleans()),
        norm=draw(st.sampled_from(["layer", "rms"])),
        norm_order=draw(st.sampled_from(["pre", "post"])),
        layer_scale=draw(st.sampled_from([0.0, 0.1])),
        pool=pool,
        final_norm=draw(st.booleans()),
        fc_norm=draw(st.booleans()),
    )


@given(configs())
@settings(deadline=None, max_examples=150)
def test_counts_equal_the_built_model(config):
    model = build_model(config, device="meta")
    assert count_parameters(config) == sum(tensor.numel() for tensor in model.parameters())
    with FlopCounterMode(display=False) as counted:
        model.forward_head(model.forward_features(torch.empty(1, config.in_chans, *config.img_size, device="meta")))
    assert count_flops(config) == counted.get_total_flops()


def test_rows_are_the_parts_of_the_built_model():
    config = ModelConfig(
        img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=20, depth=3, num_heads=5, mlp_ratio=2.0
    )
    model = build_model(config, device="meta")
    rows = {row.part: row for row in count_parts(config)}
    for part in ("tokenizer", "position", "prefix", "encoder.norm", "pool", "head"):
        assert rows[part].parameters == sum(p.numel() for p in model.get_submodule(part).parameters()), part
    for suffix, names in (("attn", ["attn"]), ("mlp", ["mlp"]), ("norms, scales", ["norm1", "norm2"])):
        built = sum(p.numel() for b in model.encoder.blocks for n in names for p in b.get_submodule(n).parameters())
        assert rows[f"encoder.blocks x3: {suffix}"].parameters == built
    assert rows["tokenizer"].shape == "3x12x20 -> 15x20"
    assert rows["prefix"].shape == "15x20 -> 16x20"
    assert rows["encoder.blocks x3: attn"].shape == "16x20 -> 16x20, 5 heads of 4"
    assert rows["encoder.blocks x3: mlp"].shape == "16x20 -> 16x40 -> 16x20"
    assert rows["head"].shape == "20 -> 7"
