import pytest
import torch

from vitreous.model.build import build_model, create_model
from vitreous.model.config import ModelConfig
from vitreous.model.init import initialise

CONFIG = ModelConfig(img_size=(24, 40), patch_size=4, in_chans=3, num_classes=50, embed_dim=120, depth=2, num_heads=5)


def test_every_parameter_is_set():
    model = build_model(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    initialise(model)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_weights_follow_timms_scheme():
    state = build_model(CONFIG, generator=torch.Generator().manual_seed(0)).state_dict()
    for name in ("encoder.blocks.1.attn.qkv.weight", "encoder.blocks.0.mlp.fc1.weight", "head.weight", "position.grid"):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.05), name
    bound = 48**-0.5
    for name in ("tokenizer.proj.weight", "tokenizer.proj.bias"):
        assert state[name].abs().max() <= bound
        assert state[name].std().item() == pytest.approx(bound / 3**0.5, rel=0.15), name
    assert state["prefix.class_token"].abs().max() < 1e-5
    assert state["prefix.class_position"].std().item() == pytest.approx(0.02, rel=0.2)
    for name, tensor in state.items():
        if "norm" in name:
            torch.testing.assert_close(tensor, torch.ones(120) if name.endswith("weight") else torch.zeros(120))
        elif name.endswith("bias") and "tokenizer" not in name:
            torch.testing.assert_close(tensor, torch.zeros_like(tensor))


def test_xavier_scales_with_the_width():
    config = ModelConfig.from_dict(CONFIG.as_dict() | {"init": "xavier"})
    state = build_model(config, generator=torch.Generator().manual_seed(0)).state_dict()
    block = "encoder.blocks.1"
    fans = {
        f"{block}.attn.proj.weight": 120 + 120,
        f"{block}.mlp.fc1.weight": 120 + 480,
        f"{block}.mlp.fc2.weight": 480 + 120,
        "head.weight": 120 + 50,
    }
    matrices = {name: (state[name], fan) for name, fan in fans.items()}
    matrices |= {f"qkv {i}": (part, 240) for i, part in enumerate(state[f"{block}.attn.qkv.weight"].chunk(3))}
    for name, (matrix, fan) in matrices.items():
        assert matrix.abs().max() <= (6 / fan) ** 0.5, name
        assert matrix.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05), name
    assert 0.8 < state["position.grid"].std() < 1.0  # a normal of 1, cut at 2
    torch.testing.assert_close(state[f"{block}.attn.qkv.bias"], torch.zeros(360), rtol=0, atol=0)


def test_weights_depend_on_the_generator_alone():
    first = build_model(CONFIG, generator=torch.Generator().manual_seed(3)).state_dict()
    torch.manual_seed(99)
    again = build_model(CONFIG, generator=torch.Generator().manual_seed(3)).state_dict()
    for name in first:
        torch.testing.assert_close(first[name], again[name], rtol=0, atol=0)


def test_without_a_generator_weights_come_from_torchs_global_one():
    heads = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        heads.append(create_model("vit_pico_patch4_28").head.weight)
    torch.testing.assert_close(heads[0], heads[1], rtol=0, atol=0)
    assert not torch.equal(heads[1], heads[2])


def test_a_seed_leaves_torchs_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    create_model("vit_pico_patch4_28", seed=7)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
