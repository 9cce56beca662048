"""What every method has in common, for every kind of model."""

import copy

import pytest
import torch
from tests.unit.use.explain.models import GRID, KINDS, draw_images, make_model

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.change.merge import merge_tokens
from vitreous.use.explain.methods import METHODS, method_named
from vitreous.use.explain.target import Target

NAMES = (
    "attention-attribution", "gradient-attention", "legrad", "grad-cam", "integrated-gradients", "rollout", "attention",
)  # fmt: skip
BY_CLASS = tuple(name for name in NAMES if METHODS[name].is_class_specific)


def explain(name, model, images, target=None, kind="token"):
    """Return the explanation of a batch, with bf16 products for the kind `autocast`."""
    options = {"steps": 4} if name == "integrated-gradients" else {}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        return METHODS[name](model, images, target, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_explains_every_kind_of_model_and_leaves_it_unchanged(name, kind):
    model = make_model(kind).train()
    model.encoder.blocks[0].eval()
    images = draw_images(dtype=torch.bfloat16 if kind == "bf16" else torch.float32)
    before, given = copy.deepcopy(model.state_dict()), images.clone()
    requires, modes = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    found = explain(name, model, images, kind=kind)
    assert found.values.shape == (3, *GRID)
    assert found.values.dtype == torch.float32
    assert not found.values.requires_grad
    assert found.values.isfinite().all()
    # Grad-CAM keeps what is above 0, which may be nothing: some of these random models have only values below 0.
    assert name == "grad-cam" or found.values.abs().amax(dim=(1, 2)).gt(0).any()
    if not METHODS[name].is_signed:
        assert found.values.min() >= 0
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert [p.requires_grad for p in model.parameters()] == requires
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    torch.testing.assert_close(images, given, rtol=0, atol=0)
    assert images.grad is None
    assert not images.requires_grad


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("bf16", "autocast")])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_explained_like_its_images_one_by_one(name, kind):
    model, images = make_model(kind, torch.float64), draw_images(dtype=torch.float64)
    together = explain(name, model, images)
    for number in range(3):
        single = explain(name, model, images[number : number + 1])
        torch.testing.assert_close(single.values[0], together.values[number], rtol=1e-5, atol=1e-6)
        if together.gaps is not None:
            torch.testing.assert_close(single.gaps[0], together.gaps[number], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["bf16", "autocast"])
@pytest.mark.parametrize("name", NAMES)
def test_bf16_gives_nearly_the_values_of_float32(name, kind):
    model, images = make_model(kind), draw_images()
    exact = explain(name, copy.deepcopy(model).float(), images, Target(2))
    given = images.bfloat16() if kind == "bf16" else images
    rounded = explain(name, model, given, Target(2), kind)
    both = torch.stack([exact.values.flatten(), rounded.values.flatten()])
    assert both.corrcoef()[0, 1] > 0.98


@pytest.mark.parametrize("kind", ["token", "token_mean", "map", "merged", "conv"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NAMES)
def test_callers_may_have_switched_gradients_off(name, mode, kind):
    model = make_model(kind)
    expected = explain(name, model, draw_images(), Target([0, 1, 2], versus=3)).values
    with mode():
        target = Target(torch.tensor([0, 1, 2]), versus=torch.tensor([3, 3, 3]))
        got = explain(name, model, draw_images(), target).values
        assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_images_that_require_a_gradient_get_none(name):
    images = draw_images().requires_grad_()
    found = explain(name, make_model(), images)
    assert not found.values.requires_grad
    assert images.grad is None
    torch.testing.assert_close(found.values, explain(name, make_model(), images.detach()).values, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_model_is_explained_like_the_original(name):
    model = make_model()
    compiled = torch.compile(model)  # compiled only when it is called, which no method does
    expected = explain(name, model, draw_images()).values
    torch.testing.assert_close(explain(name, compiled, draw_images()).values, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_no_images_give_no_values(name):
    assert explain(name, make_model(), draw_images(0)).values.shape == (0, *GRID)


@pytest.mark.parametrize("name", NAMES)
def test_other_sizes_of_images_have_other_grids(name):
    images = draw_images(size=(16, 4))
    assert explain(name, make_model("dynamic"), images).values.shape == (3, 4, 1)


@pytest.mark.parametrize("pool", ["token", "mean", "map", "token_mean"])
@pytest.mark.parametrize("name", NAMES)
def test_merging_equal_patches_changes_no_explanation(name, pool):
    model = make_model(dtype=torch.float64, img_size=(8, 16), depth=3, position="none", pool=pool, num_registers=2)
    images = draw_images(2, torch.float64, (8, 4)).repeat(1, 1, 1, 4)  # two rows of four equal patches
    merging = merge_tokens(model, [4, 2, 0])
    torch.testing.assert_close(merging(images), model(images), rtol=0, atol=1e-12)
    expected = explain(name, model, images, Target(1)).values
    assert expected.abs().amax() > 0
    torch.testing.assert_close(explain(name, merging, images, Target(1)).values, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_only_class_specific_methods_depend_on_the_class(name):
    model, images = make_model("mean"), draw_images()
    one, other = (explain(name, model, images, Target(number)).values for number in (1, 3))
    assert torch.equal(one, other) is (name not in BY_CLASS)


@pytest.mark.parametrize("name", BY_CLASS)
def test_the_default_target_is_the_predicted_class_of_each_image(name):
    model, images = make_model("max"), 3 * draw_images()
    predicted = model(images).argmax(dim=1).tolist()
    assert len(set(predicted)) > 1
    expected = explain(name, model, images, Target(predicted)).values
    torch.testing.assert_close(explain(name, model, images).values, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", BY_CLASS)
def test_comparing_two_classes_explains_the_difference_of_their_logits(name):
    """The same values as for a class whose weights are the difference of theirs."""
    model, images = make_model("sequence", torch.float64), draw_images(dtype=torch.float64)
    found = explain(name, model, images, Target(1, versus=4)).values
    with torch.no_grad():
        for values in (model.head.weight, model.head.bias):
            values[2] = values[1] - values[4]
    torch.testing.assert_close(found, explain(name, model, images, Target(2)).values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_made_in_inference_mode_is_refused(name):
    with torch.inference_mode():
        model = make_model()
    with pytest.raises(ConfigError, match=r"^model: was made inside torch.inference_mode\(\)"):
        explain(name, model, draw_images())


@pytest.mark.parametrize("name", NAMES)
def test_only_methods_that_explain_a_class_need_a_head(name):
    model = make_model(num_classes=0)
    if name not in BY_CLASS:
        assert explain(name, model, draw_images()).values.shape == (3, *GRID)
        return
    with pytest.raises(ConfigError, match=r"^model.num_classes=0: has no head"):
        explain(name, model, draw_images())


def test_other_modules_are_refused():
    with pytest.raises(ConfigError, match=r"^model=Linear: is not a VisionTransformer; use one that"):
        explain("rollout", torch.nn.Linear(2, 3), draw_images())


def test_an_error_leaves_the_model_as_it_was():
    model = make_model().train()
    with pytest.raises(ConfigError, match=r"^target=5: no such class; the model has classes 0 to 4$"):
        explain("legrad", model, draw_images(), Target(5))
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_methods_are_found_by_name():
    assert next(iter(METHODS)) == "attention-attribution"
    assert all(method_named(name).summary for name in NAMES)
    with pytest.raises(UnknownNameError, match=r"^method=grad_cam: no such method; did you mean grad-cam\?$"):
        method_named("grad_cam")
