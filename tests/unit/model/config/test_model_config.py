import json
from dataclasses import FrozenInstanceError

import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.config.model_config import ModelConfig

VALUES = {
    "img_size": (24, 40),
    "patch_size": 4,
    "in_chans": 3,
    "num_classes": 7,
    "embed_dim": 20,
    "depth": 2,
    "num_heads": 5,
}
FRACTION = "must be a probability below 1; use a number in [0, 1), e.g. 0.1"


def test_derived_sizes_know_height_from_width():
    config = ModelConfig(**VALUES)
    assert (config.grid_size, config.num_patches, config.num_tokens) == ((6, 10), 60, 61)
    assert ModelConfig(**VALUES, pool="mean").num_tokens == 60
    assert ModelConfig(**VALUES, mlp_ratio=2.37).mlp_dim == 47


def test_derived_widths_follow_heads_prefix_and_pool():
    config = ModelConfig(**VALUES, head_dim=8, num_registers=3, distill_token=True)
    assert (config.attn_dim, config.num_features, config.num_prefix_tokens, config.num_tokens) == (40, 40, 5, 65)
    assert (ModelConfig(**VALUES).attn_dim, ModelConfig(**VALUES).num_features) == (20, 20)
    assert ModelConfig(**VALUES, pool="token_mean").num_features == 40
    unread = ModelConfig(**VALUES, pool="max", class_token=True)
    assert (unread.has_class_token, unread.num_prefix_tokens, unread.num_features) == (True, 1, 20)


def test_a_branch_may_start_at_full_scale():
    assert ModelConfig(**VALUES, layer_scale=1.0).layer_scale == 1.0


def test_wide_heads_need_not_share_the_width():
    config = ModelConfig(**VALUES | {"embed_dim": 22}, head_dim=12, rotary="axial")
    assert (config.attn_dim, config.embed_dim) == (60, 22)


def test_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        ModelConfig(**VALUES).depth = 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"img_size": (224, 224), "patch_size": 15},
            "model.patch_size=15: does not divide data.img_size=224 (remainder 14); use 14, 16, 28 or 32",
        ),
        (
            {"img_size": (224, 196), "patch_size": 15},
            "model.patch_size=15: does not divide data.img_size=224x196 (remainder 14x1); use 14 or 28",
        ),
        (
            {"img_size": (28, 28), "patch_size": 16},
            "model.patch_size=16: does not divide data.img_size=28 (remainder 12); use 14",
        ),
        (
            {"img_size": (29, 29), "patch_size": 4},
            "model.patch_size=4: does not divide data.img_size=29 (remainder 1); use 1 or 29",
        ),
        (
            {"embed_dim": 192, "num_heads": 5},
            "model.num_heads=5: does not divide model.embed_dim=192 (remainder 2); use 3, 4 or 6, "
            "or say how wide a head is with model.head_dim",
        ),
        (
            {"img_size": (2000, 1002), "patch_size": 1},
            "model.patch_size=1: cuts an image of 2000x1002 px into 2004000 patches, at most 1000000 are allowed; "
            "use larger patches",
        ),
        ({"img_size": 224}, "data.img_size=224: must be a height and a width in px; use e.g. (224, 224)"),
        ({"img_size": (24, 0)}, "data.img_size=0: must be at least 1; use 1 or more"),
        (
            {"img_size": (24, 40.5)},
            "data.img_size=40.5: must be a whole number; use 1 or more, without quotes or a point",
        ),
        ({"patch_size": "4"}, "model.patch_size='4': must be a whole number; use 1 or more, without quotes or a point"),
        ({"in_chans": True}, "model.in_chans=True: must be a whole number; use 1 or more, without quotes or a point"),
        ({"depth": -3}, "model.depth=-3: must be at least 1; use 1 or more"),
        ({"num_classes": -1}, "model.num_classes=-1: must be at least 0; use 0 or more"),
        ({"embed_dim": 2**31}, "model.embed_dim=2147483648: must be at most 2147483647; use less"),
        (
            {"mlp_ratio": -2.0},
            "model.mlp_ratio=-2.0: must be a number above 0 and at most 2147483647; use e.g. 4.0",
        ),
        (
            {"mlp_ratio": 0.04},
            "model.mlp_ratio=0.04: leaves the MLP no hidden unit at model.embed_dim=20; use 0.05 or more",
        ),
        (
            {"norm_eps": "1e-6"},
            "model.norm_eps='1e-6': must be a number above 0 and at most 2147483647; use e.g. 0.000001",
        ),
        (
            {"norm_eps": float("nan")},
            "model.norm_eps=nan: must be a number above 0 and at most 2147483647; use e.g. 0.000001",
        ),
        ({"pos_drop_rate": 1.0}, f"model.pos_drop_rate=1.0: {FRACTION}"),
        ({"proj_drop_rate": -0.1}, f"model.proj_drop_rate=-0.1: {FRACTION}"),
        ({"attn_drop_rate": "0.1"}, f"model.attn_drop_rate='0.1': {FRACTION}"),
        ({"drop_path_rate": 10}, f"model.drop_path_rate=10: {FRACTION}"),
        ({"act": "geluu"}, "model.act=geluu: no such choice; did you mean gelu?"),
        ({"position": "sinusoid"}, "model.position=sinusoid: no such choice; did you mean sinusoidal?"),
        ({"init": "xavierr"}, "model.init=xavierr: no such choice; did you mean xavier?"),
        ({"pool": "cls"}, "model.pool=cls: no such choice; use one of map, max, mean, sequence, token, token_mean"),
        ({"qkv_bias": "no"}, "model.qkv_bias='no': must be a truth value; use true or false"),
        ({"class_token": 1}, "model.class_token=1: must be a truth value; use true or false"),
        (
            {"class_token": False},
            "model.pool=token: needs a class token; leave model.class_token out, or set it true",
        ),
        (
            {"class_token": False, "pool": "token_mean"},
            "model.pool=token_mean: needs a class token; leave model.class_token out, or set it true",
        ),
        (
            {"class_token": False, "distill_token": True},
            "model.pool=token: needs a class token; leave model.class_token out, or set it true",
        ),
        (
            {"distill_token": True, "pool": "mean"},
            "model.distill_token=True: is read beside the class token, not by pool=mean; use model.pool=token",
        ),
        (
            {"distill_token": True, "pool": "max", "class_token": True},
            "model.distill_token=True: is read beside the class token, not by pool=max; use model.pool=token",
        ),
        (
            {"embed_dim": 35, "rotary": "axial"},
            "model.embed_dim=35: must be a multiple of 20 for model.rotary=axial; use 40",
        ),
        (
            {"embed_dim": 30, "rotary": "dinov3"},
            "model.embed_dim=30: must be a multiple of 20 for model.rotary=dinov3; use 40",
        ),
        (
            {"head_dim": 13, "rotary": "mixed"},
            "model.head_dim=13: must be a multiple of 4 for model.rotary=mixed; use 16",
        ),
        (
            {"embed_dim": 30, "position": "sincos2d"},
            "model.embed_dim=30: must be a multiple of 4 for model.position=sincos2d; use 32",
        ),
        (
            {"embed_dim": 35, "position": "sincos2d_big_vision"},
            "model.embed_dim=35: must be a multiple of 4 for model.position=sincos2d_big_vision; use 36",
        ),
        (
            {"img_size": (24, 36), "patch_size": 6, "stem": "conv"},
            "model.patch_size=6: must be a power of two for model.stem=conv; use 8",
        ),
        (
            {"patch_size": 1, "stem": "cct"},
            "model.patch_size=1: must be a power of two for model.stem=cct; use 2",
        ),
        (
            {"relative_bias": True, "dynamic_img_size": True},
            "model.relative_bias=True: has one entry per offset of its own grid, which model.dynamic_img_size=True "
            "leaves open; use model.rotary",
        ),
        (
            {"relative_bias": True, "rotary": "mixed"},
            "model.relative_bias=True: is not combined with model.rotary=mixed; use one of the two",
        ),
        ({"head_dim": 0}, "model.head_dim=0: must be at least 1; use 1 or more"),
        ({"head_dim": 4.0}, "model.head_dim=4.0: must be a whole number; use 1 or more, without quotes or a point"),
        (
            {"head_dim": 8, "embed_dim": 22, "pool": "map"},
            "model.pool=map: shares model.embed_dim=22 among model.num_heads=5, which leaves a remainder of 2; "
            "change one of the three",
        ),
        ({"num_registers": -2}, "model.num_registers=-2: must be at least 0; use 0 or more"),
        (
            {"rotary_theta": 0},
            "model.rotary_theta=0: must be a number above 0 and at most 2147483647; use e.g. 4.0",
        ),
        ({"patch_drop_rate": 1}, f"model.patch_drop_rate=1: {FRACTION}"),
        (
            {"layer_scale": -0.1},
            "model.layer_scale=-0.1: must be a number from 0 to 2147483647; use e.g. 0.0001, or 0 for none",
        ),
        (
            {"layer_scale": "1e-5"},
            "model.layer_scale='1e-5': must be a number from 0 to 2147483647; use e.g. 0.0001, or 0 for none",
        ),
        ({"stem": "shift"}, "model.stem=shift: no such choice; did you mean shifted?"),
        ({"rotary": "axail"}, "model.rotary=axail: no such choice; did you mean axial?"),
        ({"position_resize": "tim"}, "model.position_resize=tim: no such choice; did you mean timm?"),
        ({"prefix_position": "clas"}, "model.prefix_position=clas: no such choice; did you mean class?"),
        ({"mlp": "swiglu"}, "model.mlp=swiglu: no such choice; use one of gated, plain"),
        ({"norm": "rmsnorm"}, "model.norm=rmsnorm: no such choice; did you mean rms?"),
        ({"norm_order": "past"}, "model.norm_order=past: no such choice; did you mean post?"),
        ({"drop_path_schedule": "lin"}, "model.drop_path_schedule=lin: no such choice; did you mean linear?"),
    ],
)
def test_a_broken_rule_names_the_key_the_value_and_a_way_out(changes, message):
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**VALUES | changes)
    assert str(caught.value) == message


def test_as_dict_and_from_dict_are_inverse_through_json():
    config = ModelConfig(**VALUES, position="sinusoidal", pool="mean", drop_path_rate=0.1, qkv_bias=False)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_an_unknown_key_gets_the_nearest_one():
    with pytest.raises(UnknownNameError) as caught:
        ModelConfig.from_dict({**VALUES, "embed_dmi": 192})
    assert str(caught.value) == "model.embed_dmi=192: no such key; did you mean model.embed_dim?"


def test_missing_keys_are_named():
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict({key: VALUES[key] for key in VALUES if key not in ("depth", "in_chans")})
    assert str(caught.value).endswith("lacks model.in_chans, model.depth; add it")
    assert "'num_heads': 5" in str(caught.value)
