import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.model.weights.samples import load_model

from vitreous.errors import ConfigError, DamagedFileError, UnknownNameError
from vitreous.model import ModelConfig, build_model
from vitreous.model.config.presets import config_for
from vitreous.model.config.published import PUBLISHED
from vitreous.model.weights.convert import export_weights
from vitreous.model.weights.formats import format_to_write
from vitreous.model.weights.subtree import recognize
from vitreous.model.weights.table import Hints, expected_shapes
from vitreous.model.weights.timm import TIMM

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")


def named(text):
    """Expand `a b+` to `a`, `b.weight`, `b.bias`."""
    words = [[word[:-1] + ".weight", word[:-1] + ".bias"] if word.endswith("+") else [word] for word in text.split()]
    return {name for word in words for name in word}


BLOCK = "norm1+ attn.qkv+ attn.proj+ norm2+ mlp.fc1+ mlp.fc2+"
EVA_BLOCK = "gamma_1 gamma_2 norm1+ attn.qkv.weight attn.proj+ norm2+ mlp.fc1+ mlp.fc2+"
OUTSIDE = "cls_token pos_embed patch_embed.proj+ norm+ head+"
POOL = (
    "attn_pool.latent attn_pool.q+ attn_pool.kv+ attn_pool.proj+ attn_pool.norm+ attn_pool.mlp.fc1+ attn_pool.mlp.fc2+"
)

FAMILIES = {
    # name -> tensor names in timm 1.0.31, outside of blocks and in one block; `+` means weight and bias
    "vit_tiny_patch16_224": (OUTSIDE, BLOCK),
    "deit_tiny_distilled_patch16_224": (OUTSIDE + " dist_token head_dist+", BLOCK),
    "deit3_small_patch16_224": (OUTSIDE, BLOCK + " ls1.gamma ls2.gamma"),
    "vit_giant_patch14_reg4_dinov2": (OUTSIDE + " reg_token", BLOCK + " ls1.gamma ls2.gamma"),
    "vit_base_patch32_siglip_256": ("pos_embed patch_embed.proj+ norm+ head+ " + POOL, BLOCK),
    "vit_base_patch32_clip_224": ("cls_token pos_embed patch_embed.proj.weight norm_pre+ norm+ head+", BLOCK),
    "vit_base_patch16_rpn_224": (
        "pos_embed patch_embed.proj+ fc_norm+ head+",
        "attn.qkv.weight attn.proj+ norm1+ mlp.fc1+ mlp.fc2+ norm2+",
    ),
    "vit_so150m_patch16_reg4_gap_256": ("reg_token pos_embed patch_embed.proj+ norm+ head+", BLOCK),
    "vit_base_patch16_radio_v3": (
        "cls_token reg_token pos_embed patch_embed.proj+ head+",
        BLOCK + " ls1.gamma ls2.gamma",
    ),
    "test_vit4": (
        "reg_token pos_embed patch_embed.proj+ fc_norm.weight head+",
        "norm1.weight attn.qkv+ attn.proj+ ls1.gamma norm2.weight mlp.fc1+ mlp.fc2+ ls2.gamma",
    ),
    "aimv2_large_patch14_224": (
        "pos_embed patch_embed.proj+ patch_embed.norm.weight norm.weight head+",
        "norm1.weight attn.qkv.weight attn.proj.weight norm2.weight mlp.fc1_g.weight mlp.fc1_x.weight mlp.fc2.weight",
    ),
    "vit_small_patch16_dinov3": ("cls_token reg_token patch_embed.proj+ norm+ head+", EVA_BLOCK),
    "vit_small_plus_patch16_dinov3_qkvb": (
        "cls_token reg_token patch_embed.proj+ norm+ head+",
        "gamma_1 gamma_2 norm1+ attn.q_bias attn.v_bias attn.qkv.weight attn.proj+ norm2+ mlp.fc1_g+ mlp.fc1_x+ "
        "mlp.fc2+",
    ),
    "vit_small_patch16_rope_224": ("cls_token patch_embed.proj+ norm+ head+", EVA_BLOCK + " attn.qkv.bias"),
    "vit_small_patch16_rope_mixed_ape_224": (OUTSIDE + " rope.freqs", EVA_BLOCK + " attn.qkv.bias"),
    "vit_medium_patch16_rope_reg1_gap_256": (
        "reg_token patch_embed.proj+ fc_norm+ head+",
        EVA_BLOCK + " attn.q_bias attn.v_bias",
    ),
    "vit_mediumd_patch16_rope_reg1_gap_256": ("reg_token patch_embed.proj+ fc_norm+ head+", EVA_BLOCK),
    "eva_giant_patch14_224": (
        "cls_token pos_embed patch_embed.proj+ fc_norm+ head+",
        "norm1+ attn.q_bias attn.v_bias attn.qkv.weight attn.proj+ norm2+ mlp.fc1+ mlp.fc2+",
    ),
}
SMALL = {"embed_dim": 40, "depth": 2, "num_heads": 5, "img_size": (12, 20)}


def small(name, **changes):
    """Build a small model of a family, with random parameters."""
    config = dataclasses.replace(config_for(name, num_classes=7, img_size=16, patch_size=4), **{**SMALL, **changes})
    model = build_model(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_names_are_those_in_timm(name):
    outside, block = FAMILIES[name]
    config = small(name).config
    found = expected_shapes(format_to_write("timm", config), config)
    in_blocks = {f"blocks.{number}.{part}" for number in range(2) for part in named(block)}
    assert set(found) == named(outside) | in_blocks


@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip_through_timms_names_keeps_every_bit(tmp_path, name):
    model = small(name)
    first = export_weights(model, tmp_path / "first.safetensors", to="timm")
    loaded = load_model(first, name=name, architecture=SMALL)
    assert loaded.config == model.config
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    second = export_weights(loaded, tmp_path / "second.safetensors", to="timm")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_model_is_identified_by_its_shapes(name):
    config = dataclasses.replace(config_for(name, num_classes=7, in_chans=5), depth=1)
    format_ = format_to_write("timm", config)
    shapes = expected_shapes(format_, config)
    assert recognize(shapes) is format_
    found = format_.read_config(shapes, Hints(name=f"{name}.some_tag", architecture={"depth": 1}))
    unchanged = dataclasses.replace(found, class_token=config.class_token, prefix_position=config.prefix_position)
    assert unchanged == config
    assert found.has_class_token == config.has_class_token
    assert expected_shapes(format_, found) == shapes


def test_image_size_of_the_file_wins_over_the_name():
    config = config_for("vit_tiny_patch16_224", img_size=96, patch_size=8)
    found = TIMM[0].read_config(expected_shapes(TIMM[0], config), Hints(name="vit_tiny_patch16_224"))
    assert (found.img_size, found.patch_size) == ((96, 96), 8)


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "vit_base_patch32_clip_224", "deit_small_distilled_patch16_224", "deit3_base_patch16_384",
     "vit_so400m_patch16_siglip_gap_256", "vit_wee_patch16_reg1_gap_256", "vit_so150m_patch16_reg4_map_256"],
)  # fmt: skip
def test_most_models_are_identified_by_shapes_only(name):
    config = config_for(name)
    shapes = expected_shapes(TIMM[0], config)
    found = TIMM[0].read_config(shapes, Hints())
    not_in_shapes = {key: getattr(config, key) for key in ("act", "layer_scale", "init", "drop_path_schedule")}
    numbered = {"prefix_position": config.prefix_position} if not config.num_prefix_tokens else {}
    same = {"class_token": config.class_token, "mlp_ratio": config.mlp_ratio}
    assert found.mlp_dim == config.mlp_dim
    assert dataclasses.replace(found, **not_in_shapes, **numbered, **same) == config


def test_config_json_names_the_model(tmp_path):
    model = small("vit_tiny_patch16_224", pool="mean", class_token=True, img_size=(20, 20))
    settings = {"architecture": "vit_tiny_patch16_224", "global_pool": "avg", "num_classes": 7}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    export_weights(model, tmp_path / "model.safetensors", to="timm")
    loaded = load_model(tmp_path, architecture={"embed_dim": 40, "depth": 2, "num_heads": 5})
    assert (loaded.config.pool, loaded.config.class_token, loaded.config.img_size) == ("mean", True, (20, 20))
    images = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded(images), model.eval()(images))


def described(folder, config, **settings):
    """Write a model under timm's names with a `config.json`; return the model."""
    model = build_model(config).eval()
    export_weights(model, folder / "model.safetensors", to="timm")
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224", **settings}))
    return model


TINY = dataclasses.replace(config_for("vit_tiny_patch16_224"), depth=2, embed_dim=48, img_size=(32, 64))


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({}, {}),
        ({"num_heads": 6}, {"num_heads": 6}),
        ({"layer_scale": 1e-5, "act": "quick_gelu"}, {"init_values": 1e-5, "act_layer": "quick_gelu"}),
        ({"mlp": "gated", "act": "silu", "qkv_bias": False}, {"mlp_ratio": 8.0, "qkv_bias": False}),
        ({"num_registers": 8, "prefix_position": "none"}, {"reg_tokens": 8, "no_embed_class": True}),
    ],
)
def test_arguments_in_config_json_change_the_model_that_it_names(tmp_path, changes, arguments):
    config = dataclasses.replace(TINY, **changes)
    arguments = {"img_size": [32, 64], "embed_dim": 48, "depth": 2} | arguments
    model = described(tmp_path, config, model_args=arguments, pretrained_cfg={"input_size": [3, 32, 64]})
    loaded = load_model(tmp_path)
    assert loaded.config == config
    images = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded(images), model(images))


def test_rotation_that_config_json_turns_off_is_off(tmp_path):
    config = dataclasses.replace(TINY, position="none")
    described(tmp_path, config, **json.loads(TIMM[1].describe(config)["config.json"]))
    assert load_model(tmp_path).config.rotary == "none"


AXIAL, MIXED = {"rotary": "axial"}, {"rotary": "mixed", "rotary_theta": 10.0}
DINOV3 = {"rotary": "dinov3", "norm_eps": 1e-5}


@pytest.mark.parametrize(
    ("name", "changes", "arguments", "refused"),
    [
        # timm: `ij` has rows before columns, `xy` columns before rows; the default is that of the model.
        ("rope_224", AXIAL, {"rope_grid_indexing": "xy"}, None),
        ("rope_224", AXIAL, {"rope_grid_indexing": "ij"}, "rope_grid_indexing='ij'"),
        ("rope_224", AXIAL | {"rotary_theta": 1e4}, {"rope_temperature": 1e4}, "rope_grid_indexing='xy'"),
        ("rope_224", AXIAL | {"rotary_theta": 1e4}, {"rope_temperature": 1e4, "rope_grid_indexing": "ij"}, None),
        ("rope_224", AXIAL, {"rope_type": "dinov3"}, "rope_type='dinov3'"),
        ("rope_224", AXIAL, {"rope_grid_offset": 1.0}, "rope_grid_offset=1.0"),
        ("rope_mixed_224", MIXED, {"rope_grid_indexing": "xy"}, None),
        ("rope_mixed_224", MIXED, {"rope_grid_indexing": "ij"}, "rope_grid_indexing='ij'"),
        ("dinov3", DINOV3, {"rope_grid_indexing": "ij", "rope_grid_offset": 0.0}, None),
        ("dinov3", DINOV3, {"rope_grid_indexing": "xy"}, "rope_grid_indexing='xy'"),
        ("dinov3", DINOV3, {"rope_grid_offset": 1.0}, "rope_grid_offset=1.0"),
    ],
)
def test_order_of_rotary_axes_is_read_or_refused(tmp_path, name, changes, arguments, refused):
    config = dataclasses.replace(TINY, position="none", **changes)
    settings = json.loads(TIMM[1].describe(config)["config.json"])
    assert settings["architecture"] == f"vit_small_patch16_{name}"
    usual = {key: value for key, value in settings["model_args"].items() if not key.startswith("rope_")}
    model = described(tmp_path, config, **{**settings, "model_args": usual | arguments})
    if refused is None:
        images = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(load_model(tmp_path)(images), model(images))
    else:
        with pytest.raises(ConfigError) as caught:
            load_model(tmp_path)
        other = "ij" if refused.endswith("'xy'") else "xy"
        needed = {"rope_type": "cat", "rope_grid_offset": 0, "rope_grid_indexing": other}
        assert str(caught.value) == (
            f"config.json.model_args.{refused}: our model has {needed[refused.partition('=')[0]]!r}, so its outputs "
            "would differ; open this file with timm"
        )


@pytest.mark.parametrize("argument", ["use_rot_pos_emb", "use_post_norm"])
def test_argument_that_no_tensor_shows_and_our_model_does_not_have_is_refused(tmp_path, argument):
    arguments = {"embed_dim": 48, "depth": 2, "num_heads": 3, argument: True}
    described(tmp_path, TINY, architecture="eva_giant_patch14_224", model_args=arguments)
    with pytest.raises(ConfigError, match=rf"^config\.json\.model_args\.{argument}=True: our model has False, so "):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "argument", "ours"),
    [
        ({"pool": "map", "class_token": False}, {"attn_pool_num_heads": 2}, 3),
        ({"pool": "map", "class_token": True}, {"pool_include_prefix": True}, False),
        ({"pool": "mean", "class_token": True}, {"pool_include_prefix": True}, False),
    ],
)
def test_pool_of_timm_with_other_heads_or_prefix_tokens_is_refused(tmp_path, changes, argument, ours):
    config = dataclasses.replace(TINY, **changes)
    settings = json.loads(TIMM[0].describe(config)["config.json"])
    model = described(tmp_path, config, **settings)
    images = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(load_model(tmp_path)(images), model(images))
    described(tmp_path, config, **{**settings, "model_args": settings["model_args"] | argument})
    ((key, value),) = argument.items()
    with pytest.raises(ConfigError) as caught:
        load_model(tmp_path)
    assert str(caught.value) == (
        f"config.json.model_args.{key}={value}: our model has {ours}, so its outputs would differ; open this file with "
        "timm"
    )


def test_attention_pool_of_eva_reads_the_class_token_and_is_refused(tmp_path):
    config = dataclasses.replace(TINY, position="none", rotary="axial", pool="map", class_token=True)
    with pytest.raises(ConfigError, match=r"cannot hold model\.pool=map with prefix tokens"):
        export_weights(build_model(config), tmp_path / "model.safetensors", to="timm")
    bare = dataclasses.replace(config, class_token=False)
    model = described(tmp_path, bare, **json.loads(TIMM[1].describe(bare)["config.json"]))
    assert load_model(tmp_path).config.pool == "map"
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "cls_token": torch.zeros(1, 1, model.config.embed_dim)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"^pool=map: this model's pool reads class token and registers, too, "):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("input_size", "found"), [([3, 16, 256], (16, 256)), ([3, 224, 224], (64, 64)), ([3, 40, 140], (32, 128))]
)
def test_image_size_in_config_json_counts_if_the_positions_fit_it(tmp_path, input_size, found):
    described(tmp_path, dataclasses.replace(TINY, img_size=(64, 64)), pretrained_cfg={"input_size": input_size})
    assert load_model(tmp_path, architecture={"embed_dim": 48, "depth": 2}).config.img_size == found


def test_pool_that_our_models_do_not_have_is_refused(tmp_path):
    described(tmp_path, TINY, global_pool="avgmax", pretrained_cfg={"input_size": [3, 32, 64]})
    shape = {"embed_dim": 48, "depth": 2}
    with pytest.raises(ConfigError) as caught:
        load_model(tmp_path, architecture=shape)
    assert str(caught.value) == (
        "config.json.global_pool='avgmax': our models have no such pool; to use another one, pass "
        "architecture={'pool': 'mean'}, or --architecture.pool mean"
    )
    assert load_model(tmp_path, architecture={**shape, "pool": "mean"}).config.pool == "mean"


def test_mean_pooling_in_place_of_the_class_token_is_inferred_from_its_norm():
    config = dataclasses.replace(
        config_for("vit_tiny_patch16_224"), pool="mean", class_token=True, final_norm=False, fc_norm=True
    )
    assert TIMM[0].read_config(expected_shapes(TIMM[0], config), Hints(name="vit_tiny_patch16_224")) == config


def test_config_json_gives_the_image_size_of_a_rotary_model():
    config = config_for("vit_small_patch16_dinov3", img_size=160)
    settings = {"architecture": "vit_small_patch16_dinov3", "pretrained_cfg": {"input_size": [3, 160, 160]}}
    found = TIMM[1].read_config(expected_shapes(TIMM[1], config), Hints(settings=settings))
    assert found == config


def test_rotary_pairs_of_neighboring_channels_become_pairs_of_halves(tmp_path):
    theirs = small("vit_small_patch16_rope_224")
    path = export_weights(theirs, tmp_path / "weights.safetensors", to="timm")
    qkv, head_dim = load_file(path)["blocks.1.attn.qkv.weight"], 8
    ours = theirs.encoder.blocks[1].attn.qkv.weight
    for start in range(0, 80, head_dim):  # each head's queries, then each head's keys
        there, here = qkv[start : start + head_dim], ours[start : start + head_dim]
        torch.testing.assert_close(there[0::2], here[: head_dim // 2], rtol=0, atol=0)
        torch.testing.assert_close(there[1::2], here[head_dim // 2 :], rtol=0, atol=0)
    torch.testing.assert_close(qkv[80:], ours[80:], rtol=0, atol=0)


def test_registers_without_positions_are_written_with_zeros(tmp_path):
    model = small("vit_tiny_patch16_224", num_registers=3, prefix_position="class", img_size=(20, 20))
    path = export_weights(model, tmp_path / "weights.safetensors", to="timm")
    table = load_file(path)["pos_embed"][0]
    assert table.shape == (1 + 3 + 25, 40)
    torch.testing.assert_close(table[0], model.prefix.class_position, rtol=0, atol=0)
    assert not table[1:4].any()
    loaded = load_model(path, architecture={"num_heads": 5})
    images = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded(images), model.eval()(images))


def test_decoder_of_pre_training_is_skipped(tmp_path):
    model = small("vit_tiny_patch16_224", img_size=(16, 16), num_classes=0)
    path = export_weights(model, tmp_path / "weights.safetensors", to="timm")
    extra = {"mask_token": torch.zeros(1, 1, 40), "decoder_embed.weight": torch.zeros(3, 40)}
    save_file({**load_file(path), **extra}, path)
    loaded = load_model(path, architecture={"num_heads": 5})
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_number_of_heads_of_an_unpublished_size_must_be_given(tmp_path):
    path = export_weights(small("vit_tiny_patch16_224", img_size=(16, 16)), tmp_path / "weights.safetensors", to="timm")
    with pytest.raises(ConfigError, match=r"^num_heads=None: .* width 40 and depth 2; pass the model's name"):
        load_model(path)


def test_grid_that_is_not_square_must_be_given(tmp_path):
    path = export_weights(small("vit_tiny_patch16_224", img_size=(12, 28)), tmp_path / "weights.safetensors", to="timm")
    with pytest.raises(ConfigError, match=r"^img_size=None: the 21 positions of the file do not fill a square grid; "):
        load_model(path, architecture={"num_heads": 5})


def test_name_decides_whether_the_class_token_has_a_position(tmp_path):
    path = export_weights(small("vit_tiny_patch16_224"), tmp_path / "weights.safetensors", to="timm")
    with pytest.raises(ConfigError, match=r"^img_size=None: the 15 positions of the file do not fill a square grid; "):
        load_model(path, name="vit_tiny_patch16_224", architecture={"embed_dim": 40, "depth": 2, "num_heads": 5})


def test_kind_of_rotary_positions_must_be_given(tmp_path):
    path = export_weights(small("vit_small_patch16_rope_224"), tmp_path / "weights.safetensors", to="timm")
    with pytest.raises(ConfigError) as caught:
        load_model(path, architecture={"num_heads": 5, "img_size": (12, 20)})
    assert str(caught.value) == (
        "rotary=None: the kind of rotary positions is not known from the tensors; "
        "pass the model's name, or architecture={'rotary': 'axial'}, or --architecture.rotary axial"
    )


def test_stored_frequencies_imply_mixed_rotary_positions_and_the_number_of_heads(tmp_path):
    model = small("vit_small_patch16_rope_mixed_ape_224", img_size=(16, 16))
    path = export_weights(model, tmp_path / "weights.safetensors", to="timm")
    loaded = load_model(path)
    assert (loaded.config.rotary, loaded.config.num_heads, loaded.config.rotary_theta) == ("mixed", 5, 10.0)


def test_wrong_name_is_refused(tmp_path):
    path = export_weights(small("vit_tiny_patch16_224"), tmp_path / "weights.safetensors", to="timm")
    with pytest.raises(
        DamagedFileError, match=r"wrong shape: blocks.0.attn.proj.bias is 40, must be 64, .* the model differs"
    ):
        load_model(path, name="vit_pico_patch4", architecture={"img_size": (12, 20), "depth": 2})
    with pytest.raises(UnknownNameError, match=r"^model=vit_tinny_patch16_224: no such model; did you mean vit_tiny_"):
        load_model(path, name="vit_tinny_patch16_224")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"relative_bias": True}, "model.relative_bias=True"),
        ({"position": "sincos2d"}, "model.position=sincos2d"),
        ({"locality": True, "act": "relu"}, "model.locality=True, model.act=relu"),
        ({"rotary": "axial", "attn_gate": True, "qk_norm": True}, "model.rotary=axial, model.attn_gate=True"),
        ({"pool": "map", "mlp": "gated"}, "model.pool=map with model.mlp=gated"),
        ({"head_dim": 4}, "model.head_dim=4"),
    ],
)
def test_model_that_timm_does_not_have_is_refused(tmp_path, changes, refused):
    config = ModelConfig(patch_size=4, in_chans=3, num_classes=7, **{**SMALL, **changes})
    with pytest.raises(ConfigError, match=f"timm cannot hold {refused}; use to=vitreous"):
        export_weights(build_model(config), tmp_path / "weights.safetensors", to="timm")
