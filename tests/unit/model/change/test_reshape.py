import pytest
import torch
from einops import rearrange
from tests.unit.model.builders import IMAGES, make_model
from torch.nn import functional as F

from vitreous.errors import ConfigError
from vitreous.model import (
    ModelConfig,
    build_model,
    load_model,
    make_flexible,
    merge_tokens,
    resize_model,
    save_model,
)
from vitreous.model.change.reshape import change_channels
from vitreous.model.parts.embedding import resize_grid
from vitreous.model.parts.relative_bias import resize_table
from vitreous.model.parts.tokenizer import FlexibleTokenizer, resize_projection


def enlarge(images, patch_size):
    """Resize each 4 px patch separately."""
    patches = rearrange(images, "b c (h p) (w q) -> (b h w) c p q", p=4, q=4)
    larger = F.interpolate(patches, size=(patch_size, patch_size), mode="bilinear")
    rows, columns = images.shape[2] // 4, images.shape[3] // 4
    return rearrange(larger, "(b h w) c p q -> b c (h p) (w q)", h=rows, w=columns)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_resized_model_is_a_copy_with_the_same_weights(position):
    model = make_model(position=position)
    resized = resize_model(model, (24, 8))
    assert (resized.config.img_size, resized.training) == ((24, 8), False)
    assert resized(torch.randn(2, 3, 24, 8, dtype=torch.float64)).shape == (2, 7)
    before, after = model.state_dict(), resized.state_dict()
    for name in before.keys() - {"position.grid"}:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
    with torch.no_grad():
        resized.head.weight.zero_()
    assert model.head.weight.abs().max() > 0


def test_resize_to_the_same_size_changes_nothing():
    model = make_model().train()
    torch.testing.assert_close(resize_model(model, (12, 20))(IMAGES), model(IMAGES), rtol=0, atol=0)


def test_resize_refuses_a_size_that_patches_do_not_tile():
    with pytest.raises(ConfigError) as caught:
        resize_model(make_model(), (24, 10))
    assert str(caught.value).startswith("model.patch_size=4: does not divide data.img_size=24x10 (remainder 0x2)")


@pytest.mark.parametrize("changes", [{}, {"rotary": "mixed"}, {"relative_bias": True}, {"position": "sincos2d"}])
@torch.no_grad()
def test_enlarged_patches_give_the_same_logits(changes):
    model = make_model(**changes)
    larger = resize_model(model, (18, 30), patch_size=6)
    assert (larger.config.patch_size, larger.config.grid_size) == (6, (3, 5))
    torch.testing.assert_close(larger(enlarge(IMAGES, 6)), model(IMAGES), rtol=0, atol=1e-9)


@torch.no_grad()
def test_smaller_patches_resize_projection_and_positions():
    model = make_model()
    smaller = resize_model(model, patch_size=2, interpolation="google")
    assert (smaller.config.img_size, smaller.config.position_resize) == ((12, 20), "google")
    state = smaller.state_dict()
    projection = resize_projection(model.tokenizer.proj.weight, 3, 2)
    torch.testing.assert_close(state["tokenizer.proj.weight"], projection, rtol=0, atol=0)
    grid = resize_grid(model.position.grid, (6, 10), "google")
    torch.testing.assert_close(state["position.grid"], grid, rtol=0, atol=0)
    assert smaller(IMAGES).shape == (2, 7)


@pytest.mark.parametrize("interpolation", ["timm", "torchvision", "huggingface", "google", "dinov2"])
def test_positions_are_resized_by_the_given_interpolation_or_the_models_own(interpolation):
    for model, given in ((make_model(), interpolation), (make_model(position_resize=interpolation), None)):
        resized = resize_model(model, (24, 8), interpolation=given)
        expected = resize_grid(model.position.grid, (6, 2), interpolation)
        torch.testing.assert_close(resized.position.grid, expected, rtol=0, atol=0)


def test_relative_biases_are_resized_and_those_of_prefix_tokens_are_kept():
    model = make_model(relative_bias=True)
    resized = resize_model(model, (24, 8))
    torch.testing.assert_close(resized.relation.table, resize_table(model.relation.table, (6, 2)), rtol=0, atol=0)
    torch.testing.assert_close(resized.relation.prefix_table, model.relation.prefix_table, rtol=0, atol=0)
    assert resized(torch.randn(2, 3, 24, 8).double()).shape == (2, 7)


@torch.no_grad()
def test_dynamic_model_gives_the_logits_of_a_resized_model():
    for changes in ({}, {"rotary": "axial"}, {"rotary": "dinov3", "position": "none"}, {"position": "sinusoidal"}):
        dynamic = make_model(dynamic_img_size=True, **changes)
        images = torch.randn(2, 3, 16, 8, dtype=torch.float64)
        torch.testing.assert_close(dynamic(images), resize_model(dynamic, (16, 8))(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stem", ["conv", "cct", "shifted"])
def test_other_stems_cannot_change_their_patch_size(stem):
    with pytest.raises(ConfigError) as caught:
        resize_model(make_model(stem=stem), (24, 40), patch_size=8)
    assert str(caught.value) == (
        f"patch_size=8: model.stem={stem} cannot change its patch size; keep 4, or train another model"
    )
    assert resize_model(make_model(stem=stem), (24, 8))(torch.randn(2, 3, 24, 8).double()).shape == (2, 7)


def make_model_for_channels(in_chans, stem="linear"):
    config = ModelConfig(
        img_size=(8, 12), patch_size=4, in_chans=in_chans, num_classes=5, embed_dim=16, depth=1, num_heads=2, stem=stem
    )
    return build_model(config, generator=torch.Generator().manual_seed(0)).eval()


def test_color_copy_gives_the_logits_of_the_gray_model():
    gray, images = make_model_for_channels(1), torch.randn(2, 1, 8, 12)
    color = change_channels(gray, 3)
    assert color.config.in_chans == 3
    torch.testing.assert_close(color(images.expand(-1, 3, -1, -1)), gray(images), rtol=1e-5, atol=1e-6)


def test_gray_copy_gives_the_logits_of_the_color_model_for_gray_images():
    color, images = make_model_for_channels(3), torch.randn(2, 1, 8, 12)
    gray = change_channels(color, 1)
    torch.testing.assert_close(gray(images), color(images.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-6)


def test_copy_for_other_channels_gives_the_logits_of_the_color_model_for_gray_images():
    color, images = make_model_for_channels(3), torch.randn(2, 1, 8, 12)
    other = change_channels(color, 13)
    expected = color(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(other(images.expand(-1, 13, -1, -1)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (1, 3), (3, 13), (13, 3), (4, 1), (2, 5)])
def test_weights_of_changed_channels_follow_the_formula(old, new):
    model = make_model_for_channels(old).double()
    before = model.tokenizer.proj.weight.detach().reshape(16, old, 4, 4)
    after = change_channels(model, new).tokenizer.proj.weight.detach().reshape(16, new, 4, 4)
    expected = torch.stack([before.sum(dim=1) / new] * new, dim=1)
    assert after.dtype == torch.float64
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-15)


def test_model_with_the_right_channels_is_returned_unchanged():
    model = make_model_for_channels(3)
    assert change_channels(model, 3) is model


@pytest.mark.parametrize(("old", "new", "stem"), [(3, 4, "conv"), (1, 3, "conv")])
def test_impossible_change_of_channels_is_an_error(old, new, stem):
    with pytest.raises(ConfigError) as caught:
        change_channels(make_model_for_channels(old, stem), new)
    assert str(caught.value) == (
        f"data.in_chans={new}: the model takes {old}, and its model.stem={stem} cannot be changed to {new}; "
        f"use data.in_chans={old}"
    )


def test_flexible_model_equals_its_base_until_the_patch_size_is_set():
    model = make_model()
    flexible = make_flexible(model, (2, 4, 10))
    assert isinstance(flexible.tokenizer, FlexibleTokenizer)
    assert not isinstance(model.tokenizer, FlexibleTokenizer)
    torch.testing.assert_close(flexible(IMAGES), model(IMAGES), rtol=0, atol=1e-12)
    flexible.tokenizer.patch_size = 6
    assert flexible.forward_features(torch.randn(2, 3, 12, 18).double()).shape == (2, 7, 20)
    resized = resize_model(model, (18, 30), patch_size=6)
    larger = enlarge(IMAGES, 6)
    torch.testing.assert_close(flexible(larger), resized(larger), rtol=0, atol=1e-12)


def test_flexible_model_trains_all_weights_with_every_patch_size():
    model = make_flexible(make_model(rotary="axial", num_registers=2), (2, 4)).train()
    lengths = set()
    model.encoder.register_forward_pre_hook(lambda module, inputs: lengths.add(inputs[0].shape[1]))
    for _ in range(12):
        model(IMAGES).sum().backward()
    assert lengths == {3 + 15, 3 + 60}
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_flexible_model_returns_maps_of_the_size_that_it_drew():
    model = make_flexible(make_model(), (2, 4)).train()
    shapes = {model.forward_intermediates(IMAGES, 1, intermediates_only=True)[0].shape[2:] for _ in range(12)}
    assert shapes == {(3, 5), (6, 10)}


def test_flexible_model_is_saved_with_its_base_patch_size(tmp_path):
    model = make_flexible(make_model(), (2, 4)).train()
    model(IMAGES)
    save_model(tmp_path / "model.safetensors", model, {})
    loaded = load_model(tmp_path / "model.safetensors", dtype=None)
    assert (loaded.config.patch_size, loaded.config.dynamic_img_size) == (4, True)
    torch.testing.assert_close(loaded(IMAGES), model.eval()(IMAGES), rtol=0, atol=1e-12)


def test_only_a_linear_stem_can_be_flexible():
    with pytest.raises(ConfigError) as caught:
        make_flexible(make_model(stem="shifted"), (2, 4))
    assert str(caught.value) == "model.stem=shifted: has no patches to resize; use model.stem=linear"


def test_size_of_zero_is_not_the_size_of_the_model():
    with pytest.raises(ConfigError, match=r"^model\.patch_size=0: "):
        resize_model(make_model(), patch_size=0)


@torch.no_grad()
def test_changed_model_merges_tokens_as_before():
    model, images = make_model(), torch.randn(2, 3, 16, 8, dtype=torch.float64)
    changed = resize_model(merge_tokens(model, [3, 1]), (16, 8))
    expected = merge_tokens(resize_model(model, (16, 8)), [3, 1])
    torch.testing.assert_close(changed(images), expected(images), rtol=0, atol=0)
    assert not torch.equal(changed(images), resize_model(model, (16, 8))(images))
    gray, expected = change_channels(merge_tokens(model, 2), 1), merge_tokens(change_channels(model, 1), 2)
    torch.testing.assert_close(gray(IMAGES[:, :1]), expected(IMAGES[:, :1]), rtol=0, atol=0)
    flexible, expected = make_flexible(merge_tokens(model, 2), (2, 4)), merge_tokens(model, 2)
    torch.testing.assert_close(flexible(IMAGES), expected(IMAGES), rtol=0, atol=1e-12)


@torch.no_grad()
def test_merging_of_a_model_for_smaller_images_is_limited_to_half_of_its_patches():
    smaller = resize_model(merge_tokens(make_model(), [7, 4]), (8, 4))
    lengths = [tokens.shape[1] for tokens, _ in smaller.encoder.merging_steps(torch.randn(2, 3, 20).double())]
    assert lengths == [2, 2]


def test_resized_model_keeps_its_flexible_patch_size():
    flexible = make_flexible(make_model(), (2, 4))
    flexible.tokenizer.patch_size = 2
    resized, images = resize_model(flexible, (24, 8)), torch.randn(2, 3, 24, 8).double()
    assert (resized.tokenizer.patch_sizes, resized.tokenizer.patch_size, resized.training) == ((2, 4), 2, False)
    expected = resize_model(make_model(), (24, 8), patch_size=2)
    assert resized.forward_features(images).shape == expected.forward_features(images).shape
    assert {resized.train().tokenizer(images).shape[1] for _ in range(12)} == {12, 48}
    assert resize_model(flexible, (24, 8), patch_size=8).tokenizer.patch_size == 8
    assert make_flexible(flexible, (2, 6)).tokenizer.patch_sizes == (2, 6)
    assert make_flexible(flexible, (2, 6)).tokenizer.patch_size == 4
    assert change_channels(flexible, 1).tokenizer.patch_size == 2
