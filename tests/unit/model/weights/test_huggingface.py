"""A config.json with wrong values gives a one-line error, and so does a model that no family of transformers has."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitreous.errors import ConfigError, DamagedFileError, VitreousError
from vitreous.model import ModelConfig, build_model
from vitreous.model.weights import export_weights, load_model
from vitreous.model.weights.formats import format_to_write
from vitreous.model.weights.huggingface import HUGGINGFACE

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

PLAIN = {
    "img_size": (12, 12),
    "patch_size": 4,
    "in_chans": 2,
    "num_classes": 3,
    "embed_dim": 20,
    "depth": 2,
    "num_heads": 5,
    "mlp_ratio": 3.0,
    "norm_eps": 1e-3,
}
DINOV2 = {"layer_scale": 0.1, "pool": "token_mean"}
DINOV3 = {"layer_scale": 0.1, "position": "none", "rotary": "dinov3", "num_classes": 0, "num_registers": 2}
CLIP = {"patch_bias": False, "embed_norm": True, "act": "quick_gelu"}
MODELS = {
    "vit": {},
    "vit_mae": {"position": "sincos2d", "num_classes": 0},
    "deit": {"num_registers": 1, "prefix_position": "all"},
    "distilled deit": {"distill_token": True},
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2 | {"num_registers": 4},
    "dinov3": DINOV3,
    "dinov3 without registers": DINOV3 | {"num_registers": 0},
    "siglip": {"pool": "map", "num_classes": 0, "act": "gelu_tanh"},
    "siglip classifier": {"pool": "mean"},
    "clip": CLIP,
    "clip classifier": CLIP | {"pool": "mean", "class_token": True, "final_norm": False},
}


def config(**changes):
    return ModelConfig(**PLAIN | changes)


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a model and changes values of its config.json."""

    def write(name, **changes):
        model = build_model(config(**MODELS[name]), generator=torch.Generator().manual_seed(0))
        path = export_weights(model, tmp_path / "model", to="hf").parent / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return path.parent

    return write


@pytest.mark.parametrize("name", MODELS)
def test_every_family_reads_what_it_writes(name, written):
    assert format_to_write("hf", config(**MODELS[name])).name in (f"transformers {name}", "transformers dinov3")
    folder = written(name)
    again = load_model(folder)
    expected = build_model(config(**MODELS[name]), generator=torch.Generator().manual_seed(0)).eval()
    images = torch.randn(2, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(again(images), expected(images), atol=1e-6, rtol=0)


def test_names_of_formats_are_unique():
    names = [format_.name for format_ in HUGGINGFACE]
    assert len(set(names)) == len(names)


CONTRADICTIONS = [
    ("vit", "hidden_size", 25, "wrong shape"),
    ("vit", "num_hidden_layers", 3, "missing: vit.encoder.layer.2"),
    ("vit", "num_hidden_layers", 1, "unexpected: vit.encoder.layer.1"),
    ("vit", "intermediate_size", 64, "is 60x20, must be 64x20"),
    ("vit", "image_size", [12, 16], "is 1x10x20, must be 1x13x20"),
    ("vit", "patch_size", 2, "wrong shape"),
    ("vit", "num_channels", 3, "is 20x2x4x4, must be 20x3x4x4"),
    ("vit", "qkv_bias", False, "unexpected"),
    ("vit", "head_dim", 8, "wrong shape"),
    ("vit", "id2label", {"0": "a", "1": "b"}, "classifier.bias is 3, must be 2"),
    ("distilled deit", "id2label", {}, "unexpected: cls_classifier.bias"),
    ("dinov2", "mlp_ratio", 4, "is 60x20, must be 80x20"),
    ("dinov2", "use_swiglu_ffn", True, "missing"),
    ("dinov2_with_registers", "num_register_tokens", 5, "is 1x4x20, must be 1x5x20"),
    ("dinov3", "num_register_tokens", 0, "unexpected: embeddings.register_tokens"),
    ("dinov3 without registers", "num_register_tokens", 1, "missing: embeddings.register_tokens"),
    ("dinov3", "proj_bias", False, "unexpected"),
    ("dinov3", "use_gated_mlp", True, "missing"),
    ("siglip", "intermediate_size", 61, "must be 61x20"),
    ("clip", "projection_dim", 4, "visual_projection.weight is 3x20, must be 4x20"),
    ("clip classifier", "id2label", {"0": "a"}, "must be 1"),
]


@pytest.mark.parametrize(("name", "key", "value", "message"), CONTRADICTIONS, ids=lambda value: str(value)[:20])
def test_description_that_the_tensors_contradict_is_refused(name, key, value, message, written):
    with pytest.raises(DamagedFileError) as caught:
        load_model(written(name, **{key: value}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


HOSTILE = [
    ("vit", "hidden_size", "20", "config.json.hidden_size='20': must be a whole number"),
    (
        "vit",
        "hidden_size",
        10**30,
        "config.json.hidden_size=1000000000000000000000000000000: must be from 1 to 2,147,483,647",
    ),
    ("vit", "hidden_size", 0, "config.json.hidden_size=0: must be from 1 to 2,147,483,647; correct it in the file"),
    ("vit", "hidden_size", 2**31 - 1, "model.num_heads=5: does not divide"),
    ("vit", "hidden_size", 2**31 - 3, "its architecture has"),
    ("vit", "num_hidden_layers", 2**31 - 1, "model.depth=2147483647: must be in [1, 1000]"),
    ("vit", "num_hidden_layers", True, "config.json.num_hidden_layers=True: must be a whole number"),
    ("vit", "num_attention_heads", 7, "model.num_heads=7: does not divide model.embed_dim=20"),
    ("vit", "num_attention_heads", [5], "model.num_heads=[5]: must be a whole number"),
    ("vit", "intermediate_size", -3, "config.json.intermediate_size=-3: must be from 1 to 2,147,483,647"),
    ("vit", "hidden_act", "gleu", "config.json.hidden_act=gleu: no such activation; did you mean gelu?"),
    ("vit", "hidden_act", {"a": 1}, "config.json.hidden_act={'a': 1}: no such activation"),
    ("vit", "layer_norm_eps", "tiny", "model.norm_eps='tiny': must be a number above 0 and below 2,147,483,648"),
    ("vit", "layer_norm_eps", float("nan"), "model.norm_eps=nan: must be above 0 and below 2,147,483,648"),
    ("vit", "image_size", [12], "config.json.image_size=[12]: must be one side or [height, width]"),
    ("vit", "image_size", [12, "16"], "config.json.image_size='16': must be a whole number"),
    ("vit", "image_size", 3, "config.json.image_size=3: must be from 4 to 2,147,483,647"),
    ("vit", "image_size", 2**31 - 1, "patches, at most 1,000,000 are allowed"),
    ("vit", "patch_size", [4, 2], "config.json.patch_size=[4, 2]: must be a whole number"),
    ("vit", "patch_size", 2**20, "config.json.image_size=12: must be from 1,048,576 to 2,147,483,647"),
    ("vit", "qkv_bias", "yes", "model.qkv_bias='yes': must be true or false"),
    ("vit", "head_dim", 10**9, "its architecture has"),
    ("vit", "hidden_dropout_prob", 1.0, "model.pos_drop_rate=1.0: must be in [0, 1)"),
    ("vit", "id2label", {str(number): "a" for number in range(100_000)}, "its architecture has"),
    ("dinov2", "mlp_ratio", "4", "config.json.mlp_ratio='4': must be a number above 0 and below 2,147,483,648"),
    ("dinov2", "mlp_ratio", 1e9, "its architecture has"),
    ("dinov2", "use_swiglu_ffn", 1, "config.json.use_swiglu_ffn=1: must be true or false"),
    ("dinov2", "layerscale_value", -1, "model.layer_scale=-1: must be from 0 to below 2,147,483,648"),
    ("dinov2_with_registers", "num_register_tokens", 2**31 - 1, "its architecture has"),
    ("dinov3", "rope_theta", 0, "model.rotary_theta=0: must be above 0 and below 2,147,483,648"),
    ("dinov3", "key_bias", "no", "config.json.key_bias='no': must be true or false"),
    ("dinov3", "value_bias", False, "query_bias=True, key_bias=True, value_bias=False: query and value must"),
    ("clip", "projection_dim", "x", "model.num_classes='x': must be a whole number"),
    ("siglip classifier", "vision_config", {"hidden_size": []}, "config.json.hidden_size=[]: must be a whole number"),
]


@pytest.mark.parametrize(("name", "key", "value", "message"), HOSTILE, ids=lambda value: str(value)[:20])
def test_hostile_description_gives_a_one_line_error(name, key, value, message, written):
    with pytest.raises(VitreousError) as caught:
        load_model(written(name, **{key: value}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_user_can_override_a_wrong_description(written):
    folder = written("vit", num_attention_heads=4)
    assert load_model(folder, architecture={"num_heads": 5, "norm_eps": 0.5}).config.num_heads == 5


def test_incomplete_description_is_completed_from_the_shapes(written):
    folder = written("vit")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "vit", "num_attention_heads": 5, "hidden_size": None})
    )
    assert load_model(folder).config.mlp_dim == 60


@pytest.mark.parametrize("name", MODELS)
def test_missing_tensor_is_named(name, written):
    folder = written(name)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(tensors) if "1.norm" in name or "1.layer" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(DamagedFileError, match=f"missing: {lost}"):
        load_model(folder)


REFUSED = [
    ({"num_registers": 4}, "transformers vit cannot hold model.num_registers=4"),
    ({"pool": "mean", "class_token": True}, "transformers vit cannot hold model.pool=mean"),
    ({"norm": "rms"}, "transformers vit cannot hold model.norm=rms"),
    ({"fc_norm": True}, "transformers vit cannot hold model.fc_norm=True"),
    ({"stem": "conv"}, "transformers vit cannot hold model.stem=conv"),
    ({"distill_token": True, "num_classes": 0}, "transformers distilled deit cannot hold model.num_classes=0"),
    (DINOV2 | {"mlp_ratio": 3.5}, "transformers dinov2 cannot hold model.mlp_ratio=3.5"),
    (DINOV2 | {"img_size": (12, 20)}, "transformers dinov2 cannot hold model.img_size=(12, 20)"),
    (DINOV2 | {"pool": "token"}, "transformers dinov2 cannot hold model.pool=token with model.num_classes=3"),
    (DINOV2 | {"mlp": "gated", "mlp_ratio": 2.0}, "model.act=gelu with model.mlp=gated"),
    (DINOV3 | {"num_classes": 4}, "transformers dinov3 cannot hold model.num_classes=4"),
    (DINOV3 | {"rotary": "axial"}, "transformers dinov3 cannot hold model.rotary=axial"),
    (CLIP | {"img_size": (12, 20)}, "transformers clip cannot hold model.img_size=(12, 20)"),
    ({"pool": "map"}, "transformers vit cannot hold model.pool=map"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda value: str(value)[-30:])
def test_model_that_no_family_has_is_refused(changes, message, tmp_path):
    model = build_model(config(**changes))
    with pytest.raises(ConfigError) as caught:
        export_weights(model, tmp_path / "model", to="hf")
    assert message in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_bias_of_a_clip_head_is_refused(tmp_path):
    model = build_model(config(**CLIP))
    torch.nn.init.constant_(model.head.bias, -0.25)
    with pytest.raises(ConfigError, match=r"head.bias=0.25 \(largest value\): .* has no bias"):
        export_weights(model, tmp_path / "model", to="hf")
