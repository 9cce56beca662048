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
RATE = "must be in [0, 1); the default is 0"
PATCH = "16 is usual, 4 for small images"


def test_derived_sizes_distinguish_height_from_width():
    config = ModelConfig(**VALUES)
    assert (config.grid_size, config.num_patches, config.num_tokens) == ((6, 10), 60, 61)
    assert ModelConfig(**VALUES, pool="mean").num_tokens == 60
    assert ModelConfig(**VALUES, mlp_ratio=2.37).mlp_dim == 47


def test_derived_widths_depend_on_heads_prefix_and_pool():
    config = ModelConfig(**VALUES, head_dim=8, num_registers=3, distill_token=True)
    assert (config.attn_dim, config.num_features, config.num_prefix_tokens, config.num_tokens) == (40, 40, 5, 65)
    assert (ModelConfig(**VALUES).attn_dim, ModelConfig(**VALUES).num_features) == (20, 20)
    assert ModelConfig(**VALUES, pool="token_mean").num_features == 40
    unread = ModelConfig(**VALUES, pool="max", class_token=True)
    assert (unread.has_class_token, unread.num_prefix_tokens, unread.num_features) == (True, 1, 20)


def test_layer_scale_may_start_at_one():
    assert ModelConfig(**VALUES, layer_scale=1.0).layer_scale == 1.0


def test_head_dim_allows_heads_that_do_not_divide_embed_dim():
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
            "model.patch_size=15: does not divide data.img_size=224 (remainder 14); use 14, 16, 28, 32 "
            "or data.img_size=225",
        ),
        (
            {"img_size": (224, 196), "patch_size": 15},
            "model.patch_size=15: does not divide data.img_size=224x196 (remainder 14x1); use 14, 28 or "
            "data.img_size=225x195",
        ),
        (
            {"img_size": (28, 28), "patch_size": 16},
            "model.patch_size=16: does not divide data.img_size=28 (remainder 12); use 14 or data.img_size=32",
        ),
        (
            {"img_size": (29, 29), "patch_size": 4},
            "model.patch_size=4: does not divide data.img_size=29 (remainder 1); use 1, 29 or data.img_size=28",
        ),
        (
            {"embed_dim": 192, "num_heads": 5},
            "model.num_heads=5: does not divide model.embed_dim=192 (remainder 2); use 3, 4 or 6, "
            "or set model.head_dim",
        ),
        (
            {"img_size": (2000, 1002), "patch_size": 1},
            "model.patch_size=1: cuts an image of 2000x1002 px into 2,004,000 patches, at most 1,000,000 are allowed; "
            "use larger patches",
        ),
        (
            {"img_size": 224},
            "model.img_size=224: must be 2 whole numbers, each from 1 to 2,147,483,647; give "
            "(height, width) in px, e.g. (224, 224)",
        ),
        (
            {"img_size": (24, 0)},
            "model.img_size=(24, 0): must be 2 whole numbers, each from 1 to 2,147,483,647; give "
            "(height, width) in px, e.g. (224, 224)",
        ),
        (
            {"img_size": (24, 40.5)},
            "model.img_size=(24, 40.5): must be 2 whole numbers, each from 1 to 2,147,483,647; give "
            "(height, width) in px, e.g. (224, 224)",
        ),
        ({"patch_size": "4"}, f"model.patch_size='4': must be a whole number from 1 to 2,147,483,647; {PATCH}"),
        ({"patch_size": 0}, f"model.patch_size=0: must be from 1 to 2,147,483,647; {PATCH}"),
        (
            {"in_chans": True},
            "model.in_chans=True: must be a whole number from 1 to 2,147,483,647; 3 is usual, for RGB",
        ),
        ({"depth": -3}, "model.depth=-3: must be in [1, 1000]; 6 to 24 is usual"),
        ({"num_classes": -1}, "model.num_classes=-1: must be from 0 to 2,147,483,647; 0 builds a model without a head"),
        ({"embed_dim": 2**31}, "model.embed_dim=2147483648: must be from 1 to 2,147,483,647; 192 to 1024 is usual"),
        (
            {"mlp_ratio": -2.0},
            "model.mlp_ratio=-2.0: must be above 0 and below 2,147,483,648; the default is 4",
        ),
        (
            {"mlp_ratio": 0.04},
            "model.mlp_ratio=0.04: leaves the MLP no hidden unit at width 20; use 0.05 or more",
        ),
        (
            {"norm_eps": "1e-6"},
            "model.norm_eps='1e-6': must be a number above 0 and below 2,147,483,648; the default is 1e-06",
        ),
        (
            {"norm_eps": float("nan")},
            "model.norm_eps=nan: must be above 0 and below 2,147,483,648; the default is 1e-06",
        ),
        ({"pos_drop_rate": 1.0}, f"model.pos_drop_rate=1.0: {RATE}"),
        ({"proj_drop_rate": -0.1}, f"model.proj_drop_rate=-0.1: {RATE}"),
        ({"attn_drop_rate": "0.1"}, "model.attn_drop_rate='0.1': must be a number in [0, 1); the default is 0"),
        ({"drop_path_rate": 10}, f"model.drop_path_rate=10: {RATE}"),
        (
            {"act": "geluu"},
            "model.act=geluu: must be one of gelu, gelu_tanh, quick_gelu, relu, silu; did you mean gelu?",
        ),
        (
            {"position": "sinusoid"},
            "model.position=sinusoid: must be one of learned, sinusoidal, sincos2d, sincos2d_big_vision, none; did you "
            "mean sinusoidal?",
        ),
        (
            {"init": "xavierr"},
            "model.init=xavierr: must be one of timm, xavier, jax, jax_nlhb, torchvision, deit3, mae, mimetic; did you "
            "mean xavier?",
        ),
        (
            {"pool": "cls"},
            "model.pool=cls: must be one of token, mean, max, token_mean, map, sequence; the default is token",
        ),
        ({"qkv_bias": "no"}, "model.qkv_bias='no': must be true or false; the default is true"),
        ({"class_token": 1}, "model.class_token=1: must be true or false, or none; the default is none"),
        (
            {"class_token": False},
            "model.pool=token: needs a class token; leave model.class_token out, or set it to true",
        ),
        (
            {"class_token": False, "pool": "token_mean"},
            "model.pool=token_mean: needs a class token; leave model.class_token out, or set it to true",
        ),
        (
            {"class_token": False, "distill_token": True},
            "model.class_token=False: model.distill_token=True needs the class token as well; leave it out",
        ),
        (
            {"distill_token": True, "pool": "mean"},
            "model.distill_token=True: needs the class token as well, which model.pool=mean does not read; use "
            "model.pool=token",
        ),
        (
            {"distill_token": True, "pool": "max", "class_token": True},
            "model.distill_token=True: needs the class token as well, which model.pool=max does not read; use "
            "model.pool=token",
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
            "model.embed_dim=30: must be a multiple of 4 for model.position=sincos2d; use 40",
        ),
        (
            {"embed_dim": 35, "position": "sincos2d_big_vision"},
            "model.embed_dim=35: must be a multiple of 4 for model.position=sincos2d_big_vision; use 40",
        ),
        (
            {"img_size": (24, 36), "patch_size": 6, "stem": "conv"},
            "model.patch_size=6: must be a power of two for model.stem=conv; use 2 or 4",
        ),
        (
            {"patch_size": 1, "stem": "cct"},
            "model.patch_size=1: must be a power of two for model.stem=cct; use 2 or 4",
        ),
        (
            {"relative_bias": True, "dynamic_img_size": True},
            "model.relative_bias=True: needs a single image size, but model.dynamic_img_size=True allows others; use "
            "model.rotary instead",
        ),
        (
            {"relative_bias": True, "rotary": "mixed"},
            "model.relative_bias=True: cannot be combined with model.rotary=mixed; use one of the two",
        ),
        ({"head_dim": 0}, "model.head_dim=0: must be from 1 to 2,147,483,647, or none; 64 is usual"),
        ({"head_dim": 4.0}, "model.head_dim=4.0: must be a whole number from 1 to 2,147,483,647, or none; 64 is usual"),
        (
            {"head_dim": 8, "embed_dim": 22, "pool": "map"},
            "model.pool=map: needs model.num_heads=5 to divide model.embed_dim=22 (remainder 2); change one of the "
            "three",
        ),
        ({"num_registers": -2}, "model.num_registers=-2: must be from 0 to 2,147,483,647; the default is 0"),
        (
            {"rotary_theta": 0},
            "model.rotary_theta=0: must be above 0 and below 2,147,483,648; the default is 100",
        ),
        ({"patch_drop_rate": 1}, f"model.patch_drop_rate=1: {RATE}"),
        (
            {"layer_scale": -0.1},
            "model.layer_scale=-0.1: must be from 0 to below 2,147,483,648; 1e-4 is usual, 0 leaves it out",
        ),
        (
            {"layer_scale": "1e-5"},
            "model.layer_scale='1e-5': must be a number from 0 to below 2,147,483,648; 1e-4 is usual, 0 leaves it out",
        ),
        (
            {"stem": "shift"},
            "model.stem=shift: must be one of linear, conv, cct, shifted, normed; did you mean shifted?",
        ),
        ({"rotary": "axail"}, "model.rotary=axail: must be one of none, axial, mixed, dinov3; did you mean axial?"),
        (
            {"position_resize": "tim"},
            "model.position_resize=tim: must be one of timm, torchvision, huggingface, google, dinov2; "
            "did you mean timm?",
        ),
        (
            {"prefix_position": "clas"},
            "model.prefix_position=clas: must be one of all, class, none; did you mean class?",
        ),
        ({"mlp": "swiglu"}, "model.mlp=swiglu: must be one of plain, gated; the default is plain"),
        ({"norm": "rmsnorm"}, "model.norm=rmsnorm: must be one of layer, rms; did you mean rms?"),
        ({"norm_order": "past"}, "model.norm_order=past: must be one of pre, post; did you mean post?"),
        (
            {"drop_path_schedule": "lin"},
            "model.drop_path_schedule=lin: must be one of linear, constant; did you mean linear?",
        ),
    ],
)
def test_invalid_value_is_named_with_its_key_and_what_to_do(changes, message):
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**VALUES | changes)
    assert str(caught.value) == message


def test_from_dict_reads_what_as_dict_wrote_as_json():
    config = ModelConfig(**VALUES, position="sinusoidal", pool="mean", drop_path_rate=0.1, qkv_bias=False)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_unknown_key_suggests_the_nearest_one():
    with pytest.raises(UnknownNameError) as caught:
        ModelConfig.from_dict({**VALUES, "embed_dmi": 192})
    assert str(caught.value) == "model.embed_dmi=192: no such key; did you mean model.embed_dim?"


def test_missing_keys_are_listed():
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict({key: VALUES[key] for key in VALUES if key not in ("depth", "in_chans")})
    assert str(caught.value).endswith("lacks model.in_chans, model.depth; add what is missing")
    assert "'num_heads': 5" in str(caught.value)


def test_field_names_of_earlier_versions_are_read():
    config = ModelConfig(**VALUES, pos_drop_rate=0.25)
    values = config.as_dict()
    values["drop_rate"] = values.pop("pos_drop_rate")
    assert ModelConfig.from_dict(values) == config
