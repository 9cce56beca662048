import pytest
import torch

from vitreous.errors import ShapeError, UnknownNameError
from vitreous.model import ModelConfig, build_model
from vitreous.model.change.merge import merge_tokens
from vitreous.model.taps import tap_names, taps

SHAPE = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 40, "depth": 3}
VARIANTS = {
    "plain": {},
    "axial": {"rotary": "axial", "qk_norm": True},
    "bias": {"relative_bias": True, "attn_gate": True},
    "locality": {"locality": True},
    "post_norm": {"norm_order": "post"},
}


def make_model(kernel="auto", **changes):
    """Build a float64 model with noise on every parameter."""
    config = ModelConfig(**SHAPE, num_heads=5, **changes)
    model = build_model(config, generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    for block in model.encoder.blocks:
        block.attn.kernel = kernel
    return model.eval()


def draw_images():
    return torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def count_hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@torch.no_grad()
def test_taps_on_blocks_equal_forward_intermediates():
    model = make_model()
    with taps(model, "encoder.blocks.*", "encoder.blocks.1.mlp", "head") as seen:
        logits = model(draw_images())
    assert set(seen) == {*(f"encoder.blocks.{number}" for number in range(3)), "encoder.blocks.1.mlp", "head"}
    blocks = model.forward_intermediates(
        draw_images(), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )  # fmt: skip
    for number, (patches, prefix) in enumerate(blocks):
        expected = torch.cat([prefix, patches], dim=1)
        torch.testing.assert_close(seen[f"encoder.blocks.{number}"], expected, rtol=0, atol=0)
    block, before = model.encoder.blocks[1], seen["encoder.blocks.0"]
    expected = block.mlp(block.norm2(block.drop_path(before, block.attend)))
    torch.testing.assert_close(seen["encoder.blocks.1.mlp"], expected, rtol=0, atol=0)
    torch.testing.assert_close(seen["head"], logits, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_maps_times_values_equal_the_output_of_attention(variant, kernel):
    model = make_model(kernel, **VARIANTS[variant])
    with taps(model, "encoder.blocks.*.attn.maps", "encoder.blocks.*.attn.values", "encoder.blocks.*.norm1",
              "encoder.blocks.*.attn", "encoder.blocks.*") as seen:  # fmt: skip
        model(draw_images())
    before = model.encoder.norm_pre(model.embed(draw_images())[0])
    for number, block in enumerate(model.encoder.blocks):
        name = f"encoder.blocks.{number}"
        tokens = before if variant == "post_norm" else seen[f"{name}.norm1"]
        mixed = block.attn.output(tokens, seen[f"{name}.attn.maps"] @ seen[f"{name}.attn.values"])
        torch.testing.assert_close(mixed, seen[f"{name}.attn"], rtol=0, atol=1e-12)
        before = seen[name]


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_taps_change_neither_output_nor_random_state(kernel, training, detach):
    model = make_model(kernel, attn_drop_rate=0.3, proj_drop_rate=0.2, drop_path_rate=0.1, patch_drop_rate=0.2)
    model.train(training)
    torch.manual_seed(1)
    expected, state = model(draw_images()), torch.get_rng_state()
    torch.manual_seed(1)
    with taps(model, *tap_names(model), detach=detach) as seen:
        torch.testing.assert_close(model(draw_images()), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    uncalled = set() if training else {"patch_drop"}  # patches are dropped only in training
    assert set(seen) == set(tap_names(model)) - uncalled
    assert all(isinstance(tensor, torch.Tensor) for tensor in seen.values())


def test_detach_decides_if_gradients_flow_to_the_tensors():
    model = make_model()
    for detach in (True, False):
        with taps(model, "encoder.blocks.*", "encoder.blocks.*.attn.*", detach=detach) as seen:
            model(draw_images())
        assert {tensor.requires_grad for tensor in seen.values()} == {not detach}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_logits_reach_the_maps_and_are_correct(variant):
    model, images = make_model("sdpa", **VARIANTS[variant]), draw_images().requires_grad_()
    (expected,) = torch.autograd.grad(model(images)[:, 2].sum(), images)
    with taps(model, "encoder.blocks.*.attn.maps", "encoder.blocks.1", detach=False) as seen:
        score = model(images)[:, 2].sum()
    gradient, of_maps, of_block = torch.autograd.grad(
        score, [images, seen["encoder.blocks.1.attn.maps"], seen["encoder.blocks.1"]]
    )
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
    assert of_block.abs().amax() > 0

    def replay(change):
        """Return the score after changing one attention probability of the second block."""
        block, relations = model.encoder.blocks[1], model.embed(draw_images())[1] or [None] * 3
        with taps(model, "encoder.blocks.0", "encoder.blocks.1.attn.maps") as parts:
            model(draw_images())
        tokens = parts["encoder.blocks.0"]
        normed = tokens if variant == "post_norm" else block.norm1(tokens)
        extra = () if relations[1] is None else (relations[1],)
        maps = parts["encoder.blocks.1.attn.maps"].clone()
        maps[1, 3, 4, 6] += change
        mixed = block.attn.output(normed, maps @ block.attn.project(normed, *extra)[2])
        tokens = tokens + block.ls1(block.norm1(mixed) if variant == "post_norm" else mixed)
        tokens = tokens + block.transform(tokens)
        tokens = model.encoder.blocks[2](tokens, *(() if relations[2] is None else (relations[2],)))
        return model.forward_head(model.encoder.norm(tokens))[:, 2].sum()

    with torch.no_grad():
        slope = (replay(1e-5) - replay(-1e-5)) / 2e-5
    torch.testing.assert_close(of_maps[1, 3, 4, 6], slope, rtol=1e-5, atol=1e-9)


@torch.no_grad()
def test_each_forward_replaces_the_tensors():
    model = make_model()
    with taps(model, "head") as seen:
        for images in (draw_images(), 2 * draw_images()):
            torch.testing.assert_close(model(images), seen["head"], rtol=0, atol=0)


def test_hooks_are_removed_even_after_an_error():
    model = make_model()
    with pytest.raises(ShapeError, match="images 4x20 px"), taps(model, *tap_names(model)):
        model(draw_images()[:, :, :4])
    assert count_hooks(model) == 0
    with pytest.raises(UnknownNameError), taps(model, "head", "hed"):
        pass
    assert count_hooks(model) == 0


def test_star_does_not_match_a_dot():
    model = make_model()
    with taps(model, "encoder.blocks.*") as seen:
        model(draw_images())
        assert count_hooks(model) == 3
    assert list(seen) == [f"encoder.blocks.{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("pattern", "suggestion"),
    [("encoder.blocks.7.mlp", "did you mean encoder.blocks.2.mlp?"), ("encoder.blocks.*.attn.map", "did you mean ")],
)
def test_unknown_pattern_suggests_the_nearest_name(pattern, suggestion):
    with pytest.raises(UnknownNameError) as caught, taps(make_model(), "head", pattern):
        pass
    assert str(caught.value).startswith(f"tap={pattern}: no part of this model has such a name; {suggestion}")


@torch.no_grad()
def test_taps_read_attention_in_a_merging_model():
    merging = merge_tokens(make_model(), [4, 3, 0])
    with taps(merging, "encoder.blocks.*.attn.maps", "encoder.blocks.*.attn") as seen:
        merging(draw_images())
    for number, length in enumerate((16, 12, 9)):
        maps = seen[f"encoder.blocks.{number}.attn.maps"]
        assert maps.shape == (2, 5, length, length)
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 5, length, dtype=torch.float64))
        assert seen[f"encoder.blocks.{number}.attn"].shape == (2, length, 40)
