import dataclasses

import numpy as np
import pytest
import torch
from tests.unit.model.weights.samples import assert_same, attend, load_model, noisy, norm, tanh_gelu

from vitreous.errors import ConfigError, DamagedFileError
from vitreous.model import ModelConfig
from vitreous.model.parts.fixed_position import sincos2d
from vitreous.model.weights import export_weights
from vitreous.model.weights.google import GOOGLE
from vitreous.model.weights.table import write_tensors

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

CONFIG = ModelConfig(
    img_size=(12, 12),
    patch_size=4,
    in_chans=3,
    num_classes=7,
    embed_dim=20,
    depth=2,
    num_heads=5,
    mlp_ratio=1.5,
    act="gelu_tanh",
    position_resize="google",
    init="jax",
)
TOKEN = {"prefix_position": "none"}
MEAN = {"pool": "mean"}
MAP = {"pool": "map"}
FIXED = {"pool": "map", "position": "sincos2d_big_vision"}

ORIGINAL_BLOCK = """
LayerNorm_0/scale LayerNorm_0/bias
MultiHeadDotProductAttention_1/query/kernel MultiHeadDotProductAttention_1/query/bias
MultiHeadDotProductAttention_1/key/kernel MultiHeadDotProductAttention_1/key/bias
MultiHeadDotProductAttention_1/value/kernel MultiHeadDotProductAttention_1/value/bias
MultiHeadDotProductAttention_1/out/kernel MultiHeadDotProductAttention_1/out/bias
LayerNorm_2/scale LayerNorm_2/bias
MlpBlock_3/Dense_0/kernel MlpBlock_3/Dense_0/bias MlpBlock_3/Dense_1/kernel MlpBlock_3/Dense_1/bias
"""
BIG_VISION_BLOCK = (
    ORIGINAL_BLOCK.replace("Attention_1", "Attention_0").replace("Norm_2", "Norm_1").replace("Block_3", "Block_0")
)
OUTSIDE = """
embedding/kernel embedding/bias Transformer/encoder_norm/scale Transformer/encoder_norm/bias head/kernel head/bias
"""
MAP_HEAD = """
MAPHead_0/probe MAPHead_0/LayerNorm_0/scale MAPHead_0/LayerNorm_0/bias
MAPHead_0/MultiHeadDotProductAttention_0/query/kernel MAPHead_0/MultiHeadDotProductAttention_0/query/bias
MAPHead_0/MultiHeadDotProductAttention_0/key/kernel MAPHead_0/MultiHeadDotProductAttention_0/key/bias
MAPHead_0/MultiHeadDotProductAttention_0/value/kernel MAPHead_0/MultiHeadDotProductAttention_0/value/bias
MAPHead_0/MultiHeadDotProductAttention_0/out/kernel MAPHead_0/MultiHeadDotProductAttention_0/out/bias
MAPHead_0/MlpBlock_0/Dense_0/kernel MAPHead_0/MlpBlock_0/Dense_0/bias
MAPHead_0/MlpBlock_0/Dense_1/kernel MAPHead_0/MlpBlock_0/Dense_1/bias
"""


def changed(changes):
    return dataclasses.replace(CONFIG, **changes)


def stored(path):
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def blocks(names, depth=2):
    return [f"Transformer/encoderblock_{number}/{name}" for number in range(depth) for name in names.split()]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, "cls Transformer/posembed_input/pos_embedding " + OUTSIDE),
        (MEAN, "Transformer/posembed_input/pos_embedding " + OUTSIDE),
        (TOKEN, "cls pos_embedding " + OUTSIDE),
        (MAP, "pos_embedding " + OUTSIDE + MAP_HEAD),
        (FIXED, OUTSIDE + MAP_HEAD),
    ],
)
def test_names_are_those_in_googles_code(tmp_path, changes, names):
    export_weights(noisy(changed(changes)), tmp_path / "x.npz", to="npz")
    block = ORIGINAL_BLOCK if "posembed_input" in names else BIG_VISION_BLOCK
    assert set(stored(tmp_path / "x.npz")) == {*names.split(), *blocks(block)}


def test_shapes_are_those_in_flax(tmp_path):
    export_weights(noisy(changed({"head_dim": 3})), tmp_path / "x.npz", to="npz")
    shapes = {name: tuple(array.shape) for name, array in stored(tmp_path / "x.npz").items()}
    attention = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    assert shapes["embedding/kernel"] == (4, 4, 3, 20)
    assert shapes["cls"] == (1, 1, 20)
    assert shapes["Transformer/posembed_input/pos_embedding"] == (1, 10, 20)
    assert shapes[f"{attention}/key/kernel"] == (20, 5, 3)
    assert shapes[f"{attention}/key/bias"] == (5, 3)
    assert shapes[f"{attention}/out/kernel"] == (5, 3, 20)
    assert shapes["Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"] == (20, 30)
    assert shapes["head/kernel"] == (20, 7)


@pytest.mark.parametrize("changes", [{}, {"head_dim": 3}, {"num_classes": 0}, MEAN, TOKEN, MAP, {**MEAN, **FIXED}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_round_trip_keeps_every_bit(tmp_path, changes, dtype):
    model = noisy(changed(changes), dtype=dtype)
    export_weights(model, tmp_path / "x.npz", to="npz")
    loaded = load_model(tmp_path / "x.npz", img_size=12)
    assert_same(loaded, model)
    assert loaded.config == changed(changes)
    export_weights(loaded, tmp_path / "y.npz", to="npz")
    again = stored(tmp_path / "y.npz")
    assert all(torch.equal(array, again[name]) for name, array in stored(tmp_path / "x.npz").items())


def test_bfloat16_is_written_as_float32_and_read_as_two_bytes(tmp_path):
    model = noisy(CONFIG, dtype=torch.bfloat16)
    export_weights(model, tmp_path / "x.npz", to="npz")
    assert_same(load_model(tmp_path / "x.npz"), model.float())
    raw = {
        name: array.bfloat16().view(torch.int16).numpy().view("V2")
        for name, array in stored(tmp_path / "x.npz").items()
    }
    np.savez(tmp_path / "raw.npz", **raw)
    assert_same(load_model(tmp_path / "raw.npz"), model.bfloat16())


def layer_norm(w, name, x):
    return norm(x, w[f"{name}/scale"], w[f"{name}/bias"], 1e-6)


def dense(w, name, x):
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def multi_head(w, name, queries, keys):
    q, k, v = (
        torch.einsum("nd,dhk->hnk", x, w[f"{name}/{part}/kernel"]) + w[f"{name}/{part}/bias"][:, None]
        for part, x in (("query", queries), ("key", keys), ("value", keys))
    )
    return torch.einsum("hnk,hkd->nd", attend(q, k, v), w[f"{name}/out/kernel"]) + w[f"{name}/out/bias"]


def mlp(w, name, x):
    return dense(w, f"{name}/Dense_1", tanh_gelu(dense(w, f"{name}/Dense_0", x)))


def googles_logits(w, image, *, attention, norm2, block_mlp):
    """Compute the logits of one image `[height, width, chans]`. The two code bases differ only in names."""
    side, _, _, width = w["embedding/kernel"].shape
    patches = image.unfold(0, side, side).unfold(1, side, side).permute(0, 1, 3, 4, 2)
    x = torch.einsum("hwpqc,pqcd->hwd", patches, w["embedding/kernel"]).reshape(-1, width) + w["embedding/bias"]
    if "pos_embedding" in w:
        x = x + w["pos_embedding"][0]
    elif "Transformer/posembed_input/pos_embedding" not in w:
        x = x + sincos2d((3, 3), width, variant="big_vision")
    if "cls" in w:
        x = torch.cat([w["cls"][0], x])
    if "Transformer/posembed_input/pos_embedding" in w:
        x = x + w["Transformer/posembed_input/pos_embedding"][0]
    for number in range(2):
        block = f"Transformer/encoderblock_{number}"
        normed = layer_norm(w, f"{block}/LayerNorm_0", x)
        x = x + multi_head(w, f"{block}/{attention}", normed, normed)
        x = x + mlp(w, f"{block}/{block_mlp}", layer_norm(w, f"{block}/{norm2}", x))
    x = layer_norm(w, "Transformer/encoder_norm", x)
    if "MAPHead_0/probe" in w:
        x = multi_head(w, "MAPHead_0/MultiHeadDotProductAttention_0", w["MAPHead_0/probe"][0], x)
        x = x + mlp(w, "MAPHead_0/MlpBlock_0", layer_norm(w, "MAPHead_0/LayerNorm_0", x))
    return dense(w, "head", x[0] if "cls" in w or "MAPHead_0/probe" in w else x.mean(0))


@pytest.mark.parametrize(
    "changes", [{}, {"head_dim": 3}, MEAN, TOKEN, MAP, {"pool": "mean", "position": "sincos2d_big_vision"}]
)
def test_logits_equal_googles_formulas(tmp_path, changes):
    export_weights(noisy(changed(changes), dtype=torch.float64), tmp_path / "x.npz", to="npz")
    w = stored(tmp_path / "x.npz")
    newer = "Transformer/posembed_input/pos_embedding" not in w
    image = torch.randn(12, 12, 3, dtype=torch.float64)
    expected = googles_logits(
        w,
        image,
        attention=f"MultiHeadDotProductAttention_{0 if newer else 1}",
        norm2=f"LayerNorm_{1 if newer else 2}",
        block_mlp=f"MlpBlock_{0 if newer else 3}",
    )
    model = load_model(tmp_path / "x.npz", img_size=12)
    torch.testing.assert_close(model(image.permute(2, 0, 1)[None])[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("changes", [TOKEN, MAP])
def test_stacked_blocks_are_read_and_written(tmp_path, changes):
    model = noisy(changed(changes))
    export_weights(model, tmp_path / "x.npz", to="npz")
    rolled = {}
    for name, array in stored(tmp_path / "x.npz").items():
        if "encoderblock_0" in name:
            second = stored(tmp_path / "x.npz")[name.replace("_0/", "_1/", 1)]
            rolled[name.replace("encoderblock_0", "encoderblock")] = torch.stack([array, second])
        elif "encoderblock" not in name:
            rolled[name] = array
    assert rolled["Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel"].shape == (2, 20, 5, 4)
    np.savez(tmp_path / "rolled.npz", **{f"params/{name}": array.numpy() for name, array in rolled.items()})
    loaded = load_model(tmp_path / "rolled.npz")
    assert_same(loaded, model)
    written = write_tensors(GOOGLE[4].rows(model.config), model.state_dict())
    assert written.keys() == rolled.keys()
    assert all(torch.equal(written[name], array) for name, array in rolled.items())


def rewritten(path, rename, extra=None):
    arrays = {rename(name): array.numpy() for name, array in stored(path).items()}
    np.savez(path, **arrays, **(extra or {}))


@pytest.mark.parametrize("prefix", ["params/", "params/img/", "opt/target/"])
def test_prefixes_of_runs_and_towers_are_removed(tmp_path, prefix):
    path, model = tmp_path / "x.npz", noisy(changed(MAP))
    export_weights(model, path, to="npz")
    extra = {"params/txt/embedding": np.zeros(3), "params/t": np.zeros(1), "opt/0/step": np.zeros((), np.int32)}
    rewritten(path, lambda name: prefix + name, extra)
    assert_same(load_model(path), model)


def test_older_files_of_big_vision_are_read(tmp_path):
    path, model = tmp_path / "x.npz", noisy(changed(MAP))
    export_weights(model, path, to="npz")
    rewritten(path, lambda name: name.replace("MAPHead_0/", "").replace("pos_emb", "Transformer/pos_emb"))
    assert_same(load_model(path), model)


def test_one_position_more_than_a_square_belongs_to_the_class_token(tmp_path):
    path, model = tmp_path / "x.npz", noisy(CONFIG)
    newer = write_tensors(GOOGLE[2].rows(CONFIG), model.state_dict())
    np.savez(path, **{name: tensor.numpy() for name, tensor in newer.items()})
    assert_same(load_model(path), model)


def test_grid_that_is_not_square_must_be_given(tmp_path):
    config = dataclasses.replace(CONFIG, img_size=(12, 20))
    model, path = noisy(config), tmp_path / "x.npz"
    export_weights(model, path, to="npz")
    with pytest.raises(
        ConfigError, match=r"^img_size=None: the 15 positions of the file do not fill a square grid; pass"
    ):
        load_model(path)
    assert_same(load_model(path, architecture={"img_size": (12, 20)}), model)


def test_image_size_must_be_given_if_positions_are_computed(tmp_path):
    path = tmp_path / "x.npz"
    export_weights(noisy(changed(FIXED)), path, to="npz")
    with pytest.raises(ConfigError) as caught:
        load_model(path)
    assert str(caught.value) == (
        "img_size=None: not known from the file, because its positions are computed; pass "
        "architecture={'img_size': (224, 224)}, or --architecture.img_size 224x224 (height x width)"
    )
    assert load_model(path, img_size=(20, 12)).config.img_size == (20, 12)


def test_head_after_a_representation_layer_can_only_be_replaced_or_removed(tmp_path):
    path, model = tmp_path / "x.npz", noisy(CONFIG)
    export_weights(model, path, to="npz")
    rewritten(path, str, {"pre_logits/kernel": np.zeros((20, 20)), "pre_logits/bias": np.zeros(20)})
    with pytest.raises(ConfigError) as caught:
        load_model(path)
    assert str(caught.value) == (
        "num_classes=None: the head of the file comes after a tanh layer, pre_logits, that is not supported; "
        "pass num_classes for a fresh head, or 0 for none"
    )
    features, fresh = load_model(path, num_classes=0), load_model(path, num_classes=3)
    assert features(torch.zeros(1, 3, 12, 12)).shape == (1, 20)
    assert fresh(torch.zeros(1, 3, 12, 12)).shape == (1, 3)
    assert torch.equal(fresh.encoder.norm.weight, model.encoder.norm.weight)


def test_mlp_width_survives_rounding_of_the_ratio(tmp_path):
    config = ModelConfig.from_dict(CONFIG.as_dict() | {"embed_dim": 11, "num_heads": 1, "mlp_ratio": 15 / 11})
    model = noisy(config)
    export_weights(model, tmp_path / "x.npz", to="npz")
    loaded = load_model(tmp_path / "x.npz")
    assert loaded.config.mlp_dim == 15
    assert_same(loaded, model)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"act": "gelu"}, "model.act=gelu"),
        ({"norm_eps": 1e-5}, "model.norm_eps=1e-05"),
        ({"qk_norm": True, "layer_scale": 0.1}, "model.qk_norm=True, model.layer_scale=0.1"),
        ({"pool": "mean", "class_token": True}, "model.class_token=True"),
    ],
)
def test_model_that_googles_code_does_not_have_is_refused(tmp_path, changes, refused):
    with pytest.raises(ConfigError) as caught:
        export_weights(noisy(changed(changes)), tmp_path / "x.npz", to="npz")
    assert f"cannot hold {refused}; use to=vitreous or another format" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("embedding/kernel", np.zeros((48, 20)), "its shapes fit no architecture (not enough values to unpack"),
        ("Transformer/encoderblock_0/LayerNorm_2/scale", np.zeros((21,)), "LayerNorm_2/scale is 21, must be 20"),
        ("head/kernel", np.zeros((20, 7), np.int32), "not finite floating-point numbers: head/kernel"),
    ],
)
def test_tensor_of_wrong_shape_or_type_is_named(tmp_path, name, array, reason):
    path = tmp_path / "x.npz"
    export_weights(noisy(CONFIG), path, to="npz")
    np.savez(path, **{**{key: value.numpy() for key, value in stored(path).items()}, name: array})
    with pytest.raises(DamagedFileError) as caught:
        load_model(path)
    assert reason in str(caught.value)
