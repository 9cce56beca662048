import pytest
import torch

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.build import build_model, create_model, model_from_state
from vitreous.model.config.model_config import ModelConfig

CONFIG = ModelConfig(img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=20, depth=3, num_heads=5)


def variant(**changes):
    return ModelConfig.from_dict(CONFIG.as_dict() | changes)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_every_combination_of_choices_gives_logits_and_gradients(position, pool, act):
    model = build_model(variant(position=position, pool=pool, act=act, drop_path_rate=0.2, attn_drop_rate=0.1))
    logits = model(torch.randn(2, 3, 12, 20))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.forward_features(torch.randn(2, 3, 12, 20)).shape == (2, 16 if pool == "token" else 15, 20)


def test_parameters_are_named_as_in_timm():
    names = set(build_model(CONFIG, device="meta").state_dict())
    assert {
        "encoder.blocks.0.attn.qkv.weight",
        "encoder.blocks.2.norm1.bias",
        "encoder.blocks.1.attn.proj.weight",
    } < names
    assert {"encoder.blocks.0.mlp.fc1.weight", "encoder.norm.weight", "head.weight", "tokenizer.proj.weight"} < names


def test_dropout_rates_reach_their_modules():
    model = build_model(variant(pos_drop_rate=0.1, proj_drop_rate=0.2, attn_drop_rate=0.3, drop_path_rate=0.4))
    blocks = model.encoder.blocks
    assert [block.drop_path.rate for block in blocks] == pytest.approx([0.0, 0.2, 0.4])
    assert model.encoder.drop.p == 0.1
    assert {(b.attn.proj_drop.p, b.mlp.drop1.p, b.mlp.drop2.p, b.attn.attn_drop_rate) for b in blocks} == {
        (0.2, 0.2, 0.2, 0.3)
    }


def test_norm_eps_reaches_every_norm():
    model = build_model(variant(norm_eps=1e-3))
    assert [m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)] == [1e-3] * 7


def test_model_without_classes_returns_features():
    model = build_model(variant(num_classes=0))
    assert model(torch.randn(2, 3, 12, 20)).shape == (2, 20)
    assert not any(name.startswith("head") for name in model.state_dict())


def test_meta_device_allocates_nothing():
    model = create_model("vit_pico_patch4_28")
    huge = build_model(
        ModelConfig.from_dict(model.config.as_dict() | {"embed_dim": 2**20, "num_heads": 16}), device="meta"
    )
    assert all(parameter.is_meta for parameter in huge.parameters())


def test_create_model_is_reproducible_by_seed():
    images = torch.randn(2, 1, 12, 20)
    first, again, other = (
        create_model("vit_pico", num_classes=7, in_chans=1, img_size=(12, 20), patch_size=4, seed=seed)(images)
        for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_model_from_state_keeps_dtype_and_trainability():
    state = build_model(CONFIG).double().state_dict()
    model = model_from_state(CONFIG, state)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_create_model_accepts_any_field_of_the_configuration():
    model = create_model(
        "vit_pico_patch4_28", num_classes=5, qk_norm=True, rotary="axial", pool="mean", drop_path_rate=0.2
    )
    config = model.config
    assert (config.qk_norm, config.rotary, config.pool, config.drop_path_rate) == (True, "axial", "mean", 0.2)
    assert model.encoder.blocks[0].attn.q_norm is not None


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            {"qk_nrom": True},
            UnknownNameError,
            "qk_nrom=True: no such field of ModelConfig; did you mean qk_norm?",
        ),
        (
            {"pretrained": True},
            ConfigError,
            "pretrained=True: names here come without weights; open a file, folder or hub name with "
            "vitreous.load_model",
        ),
        (
            {"global_pool": "avg"},
            ConfigError,
            "global_pool='avg': timm's name; use pool='token', 'mean' (timm: avg), 'max', 'token_mean' or 'map'",
        ),
        (
            {"drop_rate": 0.1},
            ConfigError,
            "drop_rate=0.1: timm's dropout before the head, which these models do not have; use drop_path_rate or "
            "proj_drop_rate",
        ),
    ],
)
def test_create_model_explains_unknown_arguments(arguments, kind, message):
    with pytest.raises(kind) as caught:
        create_model("vit_pico_patch4_28", **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("pool", ["token", "mean", "max", "token_mean", "map"])
def test_pools_suggested_by_the_error_exist(pool):
    assert create_model("vit_pico_patch4_28", num_classes=5, pool=pool).config.pool == pool
