import dataclasses

import pytest
import torch
from einops import rearrange
from tests.unit.model.weights.samples import assert_same, attend, load_model, noisy, norm
from torch.nn import functional as F

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model import ModelConfig
from vitreous.model.parts.fixed_position import sincos2d
from vitreous.model.weights import export_weights
from vitreous.model.weights.open import open_model
from vitreous.model.weights.table import Hints, write_tensors
from vitreous.model.weights.vit_pytorch import VIT_PYTORCH

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

HEADS = {"num_heads": 5, "head_dim": 6}
NEW = ModelConfig(
    img_size=(12, 12),
    patch_size=4,
    in_chans=3,
    num_classes=7,
    embed_dim=20,
    depth=2,
    mlp_ratio=1.5,
    stem="normed",
    qkv_bias=False,
    norm_eps=1e-5,
    **HEADS,
)
MEAN = dataclasses.replace(NEW, pool="mean")
HEAD_NORM = dataclasses.replace(NEW, final_norm=False, fc_norm=True)
OLD = dataclasses.replace(HEAD_NORM, stem="linear")
SIMPLE = dataclasses.replace(NEW, pool="mean", position="sincos2d_big_vision", proj_bias=False)
SIMPLE_HEAD_NORM = dataclasses.replace(SIMPLE, final_norm=False, fc_norm=True)

FORMATS = {format_.name.removeprefix("vit-pytorch").strip() or "1.17": format_ for format_ in VIT_PYTORCH}
CASES = [
    ("1.17", NEW),
    ("1.17", MEAN),
    ("1.6", NEW),
    ("1.2", HEAD_NORM),
    ("1.0", HEAD_NORM),
    ("0", OLD),
    ("SimpleViT", SIMPLE),
    ("SimpleViT 1.2", SIMPLE_HEAD_NORM),
]

EMBEDDING = "cls_token pos_embedding"
NORMED_PATCH = "to_patch_embedding.1+ to_patch_embedding.2+ to_patch_embedding.3+"
PLAIN_BLOCK = "0.norm+ 0.to_qkv.weight 0.to_out.0+ 1.net.0+ 1.net.1+ 1.net.4+"
WRAPPED_BLOCK = "0.norm+ 0.fn.to_qkv.weight 0.fn.to_out.0+ 1.norm+ 1.fn.net.0+ 1.fn.net.3+"
SIMPLE_BLOCK = "0.norm+ 0.to_qkv.weight 0.to_out.weight 1.net.0+ 1.net.1+ 1.net.3+"
NAMES = {
    # version -> tensor names outside of blocks and in one block; `+` means weight and bias
    "1.17": (f"{EMBEDDING} {NORMED_PATCH} transformer.norm+ mlp_head+", PLAIN_BLOCK),
    "1.6": (f"{EMBEDDING} {NORMED_PATCH} transformer.norm+ mlp_head+", PLAIN_BLOCK),
    "1.2": (f"{EMBEDDING} {NORMED_PATCH} mlp_head.0+ mlp_head.1+", PLAIN_BLOCK),
    "1.0": (f"{EMBEDDING} {NORMED_PATCH} mlp_head.0+ mlp_head.1+", WRAPPED_BLOCK),
    "0": (f"{EMBEDDING} to_patch_embedding.1+ mlp_head.0+ mlp_head.1+", WRAPPED_BLOCK),
    "SimpleViT": (f"{NORMED_PATCH} transformer.norm+ linear_head+", SIMPLE_BLOCK),
    "SimpleViT 1.2": (f"{NORMED_PATCH} linear_head.0+ linear_head.1+", SIMPLE_BLOCK),
}


def expanded(text, prefix=""):
    words = [[f"{word[:-1]}.weight", f"{word[:-1]}.bias"] if word[-1] == "+" else [word] for word in text.split()]
    return {prefix + name for word in words for name in word}


def state_of(version, model):
    return {
        name: tensor.clone()
        for name, tensor in write_tensors(FORMATS[version].rows(model.config), model.state_dict()).items()
    }


def saved(tmp_path, state):
    torch.save(state, tmp_path / "vit.pt")
    return tmp_path / "vit.pt"


@pytest.mark.parametrize(("version", "config"), CASES)
def test_names_are_those_of_the_version(version, config):
    outside, block = NAMES[version]
    blocks = [expanded(block, f"transformer.layers.{number}.") for number in range(2)]
    assert set(state_of(version, noisy(config))) == expanded(outside).union(*blocks)


def test_every_version_is_tested():
    assert {version for version, _ in CASES} == set(FORMATS) == set(NAMES)


@pytest.mark.parametrize(
    ("version", "token", "positions"),
    [("1.17", (1, 20), (10, 20)), ("1.6", (1, 1, 20), (1, 10, 20)), ("0", (1, 1, 20), (1, 10, 20))],
)
def test_tokens_have_the_axes_of_the_version(version, token, positions):
    state = state_of(version, noisy(OLD if version == "0" else NEW))
    assert (state["cls_token"].shape, state["pos_embedding"].shape) == (token, positions)
    assert state["transformer.layers.0.0.fn.to_qkv.weight" if version == "0" else
                 "transformer.layers.0.0.to_qkv.weight"].shape == (90, 20)  # fmt: skip


@pytest.mark.parametrize(("version", "config"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_keeps_every_bit(tmp_path, version, config, dtype):
    model = noisy(config, dtype=dtype)
    path = saved(tmp_path, state_of(version, model))
    loaded = load_model(path, img_size=12, architecture=HEADS)
    assert_same(loaded, model)
    assert loaded.config == config
    export_weights(loaded, tmp_path / "again.pt", to="vit-pytorch")
    if version not in ("1.6", "1.0"):  # the newest version that can hold the model is written
        theirs, again = torch.load(path), torch.load(tmp_path / "again.pt")
        assert again.keys() == theirs.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in theirs.items())


def layer_norm(w, name, x):
    return norm(x, w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def naive_logits(w, image, names, *, pool):
    """Compute the logits of one image `[chans, height, width]` by vit-pytorch's formulas, with one version's names."""
    x = rearrange(image, "c (h p) (w q) -> (h w) (p q c)", p=4, q=4)
    if "to_patch_embedding.3.weight" in w:
        x = layer_norm(w, "to_patch_embedding.1", x)
        x = layer_norm(w, "to_patch_embedding.3", linear(w, "to_patch_embedding.2", x))
    else:
        x = linear(w, "to_patch_embedding.1", x)
    if "pos_embedding" in w:
        x = torch.cat([w["cls_token"].reshape(-1, 20), x]) + w["pos_embedding"].reshape(-1, 20)
    else:
        x = x + sincos2d((3, 3), 20, variant="big_vision")
    for number in range(2):
        layer = f"transformer.layers.{number}"
        inner = linear(w, f"{layer}.0.{names[1]}", layer_norm(w, f"{layer}.0.{names[0]}", x))
        query, key, value = (rearrange(part, "n (h d) -> h n d", h=5) for part in inner.chunk(3, dim=-1))
        x = x + linear(w, f"{layer}.0.{names[2]}", rearrange(attend(query, key, value), "h n d -> n (h d)"))
        hidden = F.gelu(linear(w, f"{layer}.1.{names[4]}", layer_norm(w, f"{layer}.1.{names[3]}", x)))
        x = x + linear(w, f"{layer}.1.{names[5]}", hidden)
    if "transformer.norm.weight" in w:
        x = layer_norm(w, "transformer.norm", x)
    head = next(name for name in ("mlp_head", "linear_head") if any(key.startswith(name) for key in w))
    features = x[0] if pool == "token" else x.mean(0)
    if f"{head}.0.weight" in w:
        return linear(w, f"{head}.1", layer_norm(w, f"{head}.0", features))
    return linear(w, head, features)


@pytest.mark.parametrize(("version", "config"), CASES)
def test_logits_equal_vit_pytorchs_formulas(tmp_path, version, config):
    w = state_of(version, noisy(config, dtype=torch.float64))
    image = torch.randn(3, 12, 12, dtype=torch.float64)
    names = [name.removesuffix(".weight").rstrip("+")[2:] for name in NAMES[version][1].split()]
    model = load_model(saved(tmp_path, w), img_size=12, architecture=HEADS)
    expected = naive_logits(w, image, names, pool=config.pool)
    torch.testing.assert_close(model(image[None])[0], expected, rtol=1e-10, atol=1e-10)


def test_names_of_the_first_versions_are_read(tmp_path):
    model = noisy(OLD)
    first = {}
    for name, tensor in state_of("0", model).items():
        for current, older in (
            ("to_patch_embedding.1", "patch_to_embedding"),
            (".fn.to_out.0.", ".fn.to_out."),
            (".fn.", ".fn.fn."),
            (".norm.", ".fn.norm."),
        ):
            name = name.replace(current, older)
        first[name] = tensor
    assert {"patch_to_embedding.weight", "transformer.layers.1.0.fn.fn.to_out.bias"} < first.keys()
    assert "transformer.layers.1.1.fn.norm.weight" in first
    assert_same(load_model(saved(tmp_path, first), architecture=HEADS), model)


@pytest.mark.parametrize("given", [{"num_heads": 5}, {"head_dim": 6}])
def test_number_and_width_of_heads_follow_from_each_other(tmp_path, given):
    loaded = load_model(saved(tmp_path, state_of("1.17", noisy(NEW))), architecture=given)
    assert (loaded.config.num_heads, loaded.config.head_dim) == (5, 6)


def test_number_of_heads_must_be_given(tmp_path):
    wide = dataclasses.replace(NEW, num_heads=3, head_dim=64)
    with pytest.raises(ConfigError) as caught:
        load_model(saved(tmp_path, state_of("1.17", noisy(wide))))
    assert str(caught.value) == (
        "num_heads=None: not known from the shapes, all heads together have width 192; pass "
        "architecture={'num_heads': 3}, or --architecture.num_heads 3 (if each has vit-pytorch's default width of 64)"
    )


def test_gray_is_inferred_and_other_channels_must_be_given(tmp_path):
    for chans, given in ((1, {}), (4, {"in_chans": 4}), (5, {"patch_size": 4})):
        path = saved(tmp_path, state_of("1.17", noisy(dataclasses.replace(NEW, in_chans=chans))))
        assert load_model(path, architecture={**HEADS, **given}).config.in_chans == chans
    with pytest.raises(ConfigError, match=r"^patch_size=None: the 80 values of a patch are not a square of 3"):
        load_model(path, architecture=HEADS)


def test_user_can_give_another_activation(tmp_path):
    path = saved(tmp_path, state_of("1.17", noisy(NEW)))
    assert load_model(path, architecture={**HEADS, "act": "relu"}).config.act == "relu"
    with pytest.raises(UnknownNameError, match=r"^architecture\.heads=5: no such key"):
        load_model(path, architecture={"heads": 5})


@pytest.mark.parametrize(("version", "config"), CASES)
def test_pool_is_assumed_if_a_class_token_does_not_show_it(tmp_path, version, config):
    path = saved(tmp_path, state_of(version, noisy(config)))
    found = open_model(path, Hints(architecture=HEADS, img_size=(12, 12)))
    assert ("pool" in found.assumed) == (version in ("1.6", "1.2", "1.0", "0"))


def test_mean_that_includes_the_class_token_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_model(saved(tmp_path, state_of("1.6", noisy(NEW))), architecture={**HEADS, "pool": "mean"})
    assert str(caught.value).startswith("architecture.pool=mean: this file has a class token, which vit-pytorch would")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"qkv_bias": True}, "model.qkv_bias=True"),
        ({"norm_eps": 1e-6}, "model.norm_eps=1e-06"),
        ({"act": "relu"}, "model.act=relu"),
        ({"num_classes": 0}, "model.num_classes=0"),
        ({"pool": "mean", "class_token": True}, "model.class_token=True"),
    ],
)
def test_model_that_vit_pytorch_does_not_have_is_refused(tmp_path, changes, refused):
    with pytest.raises(ConfigError) as caught:
        export_weights(noisy(dataclasses.replace(NEW, **changes)), tmp_path / "x.pt", to="vit-pytorch")
    assert f"cannot hold {refused}; use to=vitreous or another format" in str(caught.value)
