"""The options of single methods, and what is particular to them."""

import pytest
import torch
from tests.unit.use.explain.models import draw_images, make_model

from vitreous.errors import ConfigError
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.target import Target


def explain(name, model, images, target=None, **options):
    return METHODS[name](model, images, target, **options)


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 2), (-1, -3), (-2, -1), (0, None), (-1, None)])
def test_attention_takes_a_layer_and_a_head_from_either_end(layer, head):
    model, images = make_model("registers"), draw_images()
    heads = range(3) if head is None else [head % 3]
    expected = sum(explain("attention", model, images, layer=layer % 2, head=one).values for one in heads) / len(heads)
    torch.testing.assert_close(explain("attention", model, images, layer=layer, head=head).values, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2}, "layer=2: does not exist; use 0 to 1, or -2 to -1 from the last"),
        ({"layer": -3}, "layer=-3: does not exist; use 0 to 1, or -2 to -1 from the last"),
        ({"head": 3}, "head=3: does not exist; use 0 to 2, or -3 to -1 from the last"),
        ({"layer": 0, "head": -4}, "head=-4: does not exist; use 0 to 2, or -3 to -1 from the last"),
    ],
)
def test_attention_names_the_range_of_layers_and_heads(options, message):
    with pytest.raises(ConfigError) as error:
        explain("attention", make_model(), draw_images(), **options)
    assert str(error.value) == message


@pytest.mark.parametrize("kind", ["token", "distill", "merged", "map", "token_mean", "locality"])
@pytest.mark.parametrize("name", ["attention", "rollout"])
def test_attention_and_rollout_share_one_among_all_tokens(name, kind):
    values = explain(name, make_model(kind), draw_images()).values.sum(dim=(1, 2))
    assert (values < 1 + 1e-6).all()
    if not make_model(kind).num_prefix_tokens:  # nothing goes to prefix tokens
        torch.testing.assert_close(values, torch.ones(3))


def test_attention_of_a_distilled_model_is_the_mean_of_both_tokens():
    model, images = make_model("distill", torch.float64), draw_images(dtype=torch.float64)
    tokens = model.embed(images)[0]
    block = model.encoder.blocks[0]
    maps = block.attn.maps(block.norm1(tokens))[:, :, :2, 2:].mean(dim=(1, 2)).unflatten(1, (2, 3))
    torch.testing.assert_close(explain("attention", model, images, layer=0).values, maps.detach().float())


@pytest.mark.parametrize("number", [0, 3, -1])
def test_legrad_names_the_range_of_layers(number):
    with pytest.raises(ConfigError, match=rf"^num_layers={number}: the model has 2 layers; use 1 to 2, or None$"):
        explain("legrad", make_model(), draw_images(), num_layers=number)


def test_legrad_explains_all_layers_by_default():
    model, images = make_model(depth=3), draw_images()
    every = explain("legrad", model, images, num_layers=3).values
    torch.testing.assert_close(explain("legrad", model, images).values, every)
    assert (every >= explain("legrad", model, images, num_layers=2).values).all()


@pytest.mark.parametrize("steps", [0, -3])
def test_integrated_gradients_need_a_step(steps):
    with pytest.raises(ConfigError, match=rf"^steps={steps}: must be at least 1; 32 is usual$"):
        explain("integrated-gradients", make_model(), draw_images(), steps=steps)


@pytest.mark.parametrize("kind", ["token", "mean", "shifted", "relative_bias", "autocast"])
def test_integrated_gradients_sum_to_the_change_of_the_score(kind):
    model, images = make_model(kind), draw_images()
    found = explain("integrated-gradients", model, images, Target([0, 1, 2], versus=4), steps=64)
    with torch.no_grad():
        change = model(images) - model(torch.zeros_like(images))
    change = change[range(3), [0, 1, 2]] - change[:, 4]
    torch.testing.assert_close(found.values.sum(dim=(1, 2)), change, rtol=0.01, atol=0.01)
    assert found.gaps.max() < 0.01


def test_the_gap_is_what_the_sum_misses_as_a_share_of_the_change():
    model, images = make_model("max"), 4 * draw_images()
    found = explain("integrated-gradients", model, images, Target(2), steps=1)
    with torch.no_grad():
        change = (model(images) - model(torch.zeros_like(images)))[:, 2]
    expected = (found.values.sum(dim=(1, 2)) - change).abs() / change.abs()
    assert expected.min() > 0.001
    torch.testing.assert_close(found.gaps, expected, rtol=1e-4, atol=1e-6)


def test_integrated_gradients_give_nothing_to_patches_of_the_mean_color():
    images = draw_images()
    images[:, :, :4, 4:8] = 0
    images[2] = 0
    found = explain("integrated-gradients", make_model("mean"), images)
    assert (found.values[:, 0, 1] == 0).all()
    assert (found.values[:2, 1] != 0).all()
    assert found.gaps[2] == 0


def test_only_integrated_gradients_are_signed():
    assert [name for name in ("gradient-attention", "legrad", "grad-cam", "integrated-gradients", "rollout",
                              "attention") if METHODS[name].is_signed] == ["integrated-gradients"]  # fmt: skip
    assert explain("integrated-gradients", make_model(), draw_images()).values.min() < 0
