import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model import ModelConfig, build_model, load_model, make_flexible, resize_model, save_model
from vitreous.model.parts.embedding import resize_grid
from vitreous.model.parts.head import DistilledHead
from vitreous.model.parts.pool import AttentionPool, MaxPool, MeanPool, TokenMeanPool
from vitreous.model.parts.relative_bias import resize_table
from vitreous.model.parts.tokenizer import FlexibleTokenizer, resize_projection

SHAPE = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 20, "depth": 2}
IMAGES = torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def noisy(**changes):
    torch.manual_seed(0)
    model = build_model(ModelConfig(**SHAPE | changes, num_heads=5)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def enlarge(images, patch_size):
    """Each 4 px patch resized by itself."""
    patches = rearrange(images, "b c (h p) (w q) -> (b h w) c p q", p=4, q=4)
    larger = F.interpolate(patches, size=(patch_size, patch_size), mode="bilinear")
    rows, columns = images.shape[2] // 4, images.shape[3] // 4
    return rearrange(larger, "(b h w) c p q -> b c (h p) (w q)", h=rows, w=columns)


@pytest.mark.parametrize("changes", [{}, {"rotary": "mixed"}, {"relative_bias": True}, {"position": "sincos2d"}])
@torch.no_grad()
def test_larger_patches_of_as_much_larger_images_give_the_same_logits(changes):
    model = noisy(**changes)
    larger = resize_model(model, (18, 30), patch_size=6)
    assert (larger.config.patch_size, larger.config.grid_size) == (6, (3, 5))
    torch.testing.assert_close(larger(enlarge(IMAGES, 6)), model(IMAGES), rtol=0, atol=1e-9)


@torch.no_grad()
def test_smaller_patches_of_the_same_images_resample_projection_and_positions():
    model, images = noisy(), IMAGES
    smaller = resize_model(model, patch_size=2, interpolation="google")
    assert (smaller.config.img_size, smaller.config.position_resize) == ((12, 20), "google")
    state = smaller.state_dict()
    projection = resize_projection(model.tokenizer.proj.weight, 3, 2)
    torch.testing.assert_close(state["tokenizer.proj.weight"], projection, rtol=0, atol=0)
    grid = resize_grid(model.position.grid, (6, 10), "google")
    torch.testing.assert_close(state["position.grid"], grid, rtol=0, atol=0)
    assert smaller(images).shape == (2, 7)


@pytest.mark.parametrize("interpolation", ["timm", "torchvision", "huggingface", "google"])
def test_positions_go_by_the_interpolation_that_was_asked_for_or_the_models_own(interpolation):
    for model, asked in ((noisy(), interpolation), (noisy(position_resize=interpolation), None)):
        resized = resize_model(model, (24, 8), interpolation=asked)
        expected = resize_grid(model.position.grid, (6, 2), interpolation)
        torch.testing.assert_close(resized.position.grid, expected, rtol=0, atol=0)


def test_offsets_are_resampled_and_their_prefix_entries_kept():
    model = noisy(relative_bias=True)
    resized = resize_model(model, (24, 8))
    torch.testing.assert_close(resized.relation.table, resize_table(model.relation.table, (6, 2)), rtol=0, atol=0)
    torch.testing.assert_close(resized.relation.prefix_table, model.relation.prefix_table, rtol=0, atol=0)
    assert resized(torch.randn(2, 3, 24, 8).double()).shape == (2, 7)


@torch.no_grad()
def test_a_dynamic_model_gives_at_another_size_the_logits_of_a_resized_one():
    for changes in ({}, {"rotary": "axial"}, {"rotary": "dinov3", "position": "none"}, {"position": "sinusoidal"}):
        dynamic = noisy(dynamic_img_size=True, **changes)
        images = torch.randn(2, 3, 16, 8, dtype=torch.float64)
        torch.testing.assert_close(dynamic(images), resize_model(dynamic, (16, 8))(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stem", ["conv", "cct", "shifted"])
def test_other_stems_keep_their_patch_size(stem):
    with pytest.raises(ConfigError) as caught:
        resize_model(noisy(stem=stem), (24, 40), patch_size=8)
    assert str(caught.value) == (
        f"patch_size=8: model.stem={stem} cannot change its patch size; keep 4, or train another model"
    )
    assert resize_model(noisy(stem=stem), (24, 8))(torch.randn(2, 3, 24, 8).double()).shape == (2, 7)


def test_a_flexible_model_equals_its_base_until_another_patch_size_is_chosen():
    model = noisy()
    flexible = make_flexible(model, (2, 4, 10))
    assert isinstance(flexible.tokenizer, FlexibleTokenizer)
    assert not isinstance(model.tokenizer, FlexibleTokenizer)
    torch.testing.assert_close(flexible(IMAGES), model(IMAGES), rtol=0, atol=1e-12)
    flexible.tokenizer.patch_size = 6
    assert flexible.forward_features(torch.randn(2, 3, 12, 18).double()).shape == (2, 7, 20)
    sixes = resize_model(model, (18, 30), patch_size=6)
    larger = enlarge(IMAGES, 6)
    torch.testing.assert_close(flexible(larger), sixes(larger), rtol=0, atol=1e-12)


def test_a_flexible_model_trains_all_its_weights_with_every_patch_size():
    model = make_flexible(noisy(rotary="axial", num_registers=2), (2, 4)).train()
    lengths = set()
    model.encoder.register_forward_pre_hook(lambda module, inputs: lengths.add(inputs[0].shape[1]))
    for _ in range(12):
        model(IMAGES).sum().backward()
    assert lengths == {3 + 15, 3 + 60}
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_a_flexible_model_gives_maps_of_whatever_size_it_drew():
    model = make_flexible(noisy(), (2, 4)).train()
    shapes = {model.forward_intermediates(IMAGES, 1, intermediates_only=True)[0].shape[2:] for _ in range(12)}
    assert shapes == {(3, 5), (6, 10)}


def test_a_flexible_model_is_saved_in_its_base_patch_size(tmp_path):
    model = make_flexible(noisy(), (2, 4)).train()
    model(IMAGES)
    save_model(tmp_path / "model.safetensors", model, {})
    loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.config.patch_size, loaded.config.dynamic_img_size) == (4, True)
    torch.testing.assert_close(loaded(IMAGES), model.eval()(IMAGES), rtol=0, atol=1e-12)


def test_only_patches_can_be_flexible():
    with pytest.raises(ConfigError) as caught:
        make_flexible(noisy(stem="shifted"), (2, 4))
    assert str(caught.value) == "model.stem=shifted: has no patches to resize; use model.stem=linear"


POOLS = {"avg": MeanPool, "mean": MeanPool, "max": MaxPool, "token_mean": TokenMeanPool}


@pytest.mark.parametrize("pool", [None, *POOLS])
def test_a_fresh_head_leaves_all_else_and_the_model_saves_and_loads(pool, tmp_path):
    model = noisy(num_registers=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("head")}
    model.reset_classifier(11, pool)
    assert model.get_classifier() is model.head
    assert model(IMAGES).shape == (2, 11)
    assert (model.num_classes, model.config.num_classes, model.config.num_prefix_tokens) == (11, 11, 3)
    assert model.head.weight.dtype == torch.float64
    assert not model.head.training
    for name, tensor in before.items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)
    if pool:
        assert type(model.pool) is POOLS[pool]
    save_model(tmp_path / "model.safetensors", model, {})
    torch.testing.assert_close(load_model(tmp_path / "model.safetensors")(IMAGES), model(IMAGES), rtol=0, atol=0)


def test_a_fresh_head_is_drawn_by_the_models_own_scheme():
    model = noisy(init="jax_nlhb", distill_token=True)
    model.reset_classifier(11)
    assert isinstance(model.head, DistilledHead)
    torch.testing.assert_close(model.head.teacher.weight, torch.zeros(11, 20).double(), rtol=0, atol=0)
    torch.testing.assert_close(model.head.label.bias, torch.full((11,), -torch.log(torch.tensor(11.0))).double())


def test_no_classes_leave_the_head_out():
    model = noisy()
    features = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
    model.reset_classifier(0)
    torch.testing.assert_close(model(IMAGES), features, rtol=0, atol=1e-5)
    assert isinstance(model.head, torch.nn.Identity)


def test_a_learned_pool_can_be_left_but_not_entered():
    model = noisy(pool="map")
    model.reset_classifier(5)
    assert isinstance(model.pool, AttentionPool)
    model.reset_classifier(5, "avg")
    assert isinstance(model.pool, MeanPool)
    for pool in ("map", "sequence"):
        with pytest.raises(ConfigError) as caught:
            model.reset_classifier(5, pool)
        assert str(caught.value) == f"global_pool={pool}: has weights of its own; create the model with it"


@pytest.mark.parametrize(
    ("changes", "pool", "message"),
    [
        (
            {"pool": "mean"},
            "token",
            "model.pool=token: needs a class token; leave model.class_token out, or set it to true",
        ),
        (
            {"distill_token": True},
            "avg",
            "model.distill_token=True: needs the class token as well, which model.pool=mean does not read; use "
            "model.pool=token",
        ),
        (
            {"fc_norm": True},
            "token_mean",
            "global_pool=token_mean: gives 40 features, model.fc_norm is made for 20; create the model with it",
        ),
    ],
)
def test_a_pool_that_does_not_fit_is_refused_and_leaves_the_model_as_it_was(changes, pool, message):
    model = noisy(**changes)
    logits, config = model(IMAGES), model.config
    with pytest.raises(ConfigError) as caught:
        model.reset_classifier(11, pool)
    assert str(caught.value) == message
    assert model.config == config
    torch.testing.assert_close(model(IMAGES), logits, rtol=0, atol=0)


def test_an_unknown_pool_gets_the_nearest_name():
    with pytest.raises(UnknownNameError) as caught:
        noisy().reset_classifier(11, "meen")
    assert str(caught.value) == (
        "model.pool=meen: must be one of token, mean, max, token_mean, map, sequence; did you mean mean?"
    )
