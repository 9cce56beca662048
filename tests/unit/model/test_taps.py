import doctest

import pytest
import torch

from vitreous.errors import ShapeError, UnknownNameError
from vitreous.model import ModelConfig, build_model, taps
from vitreous.model.change.merge import merge_tokens
from vitreous.model.taps import tap_names
from vitreous.model.taps import taps as read

SHAPE = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 40, "depth": 3}
VARIANTS = {
    "plain": {},
    "axial": {"rotary": "axial", "qk_norm": True},
    "bias": {"relative_bias": True, "attn_gate": True},
    "locality": {"locality": True},
    "post_norm": {"norm_order": "post"},
}


def make(kernel="auto", **changes):
    config = ModelConfig(**SHAPE, num_heads=5, **changes)
    model = build_model(config, generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    for block in model.encoder.blocks:
        block.attn.kernel = kernel
    return model.eval()


def draw():
    return torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_the_docstrings_example_runs():
    results = doctest.testmod(taps)
    assert (results.attempted, results.failed) == (5, 0)


@torch.no_grad()
def test_blocks_are_read_as_forward_intermediates_gives_them():
    model = make()
    with read(model, "encoder.blocks.*", "encoder.blocks.1.mlp", "head") as seen:
        logits = model(draw())
    assert set(seen) == {*(f"encoder.blocks.{number}" for number in range(3)), "encoder.blocks.1.mlp", "head"}
    blocks = model.forward_intermediates(
        draw(), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
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
def test_maps_times_values_is_what_attention_gave(variant, kernel):
    model = make(kernel, **VARIANTS[variant])
    with read(model, "encoder.blocks.*.attn.maps", "encoder.blocks.*.attn.values", "encoder.blocks.*.norm1",
              "encoder.blocks.*.attn", "encoder.blocks.*") as seen:  # fmt: skip
        model(draw())
    before = model.encoder.norm_pre(model.embed(draw())[0])
    for number, block in enumerate(model.encoder.blocks):
        name = f"encoder.blocks.{number}"
        tokens = before if variant == "post_norm" else seen[f"{name}.norm1"]
        mixed = block.attn.output(tokens, seen[f"{name}.attn.maps"] @ seen[f"{name}.attn.values"])
        torch.testing.assert_close(mixed, seen[f"{name}.attn"], rtol=0, atol=1e-12)
        before = seen[name]


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_reading_everything_changes_neither_output_nor_randomness(kernel, training, detach):
    model = make(kernel, attn_drop_rate=0.3, proj_drop_rate=0.2, drop_path_rate=0.1, patch_drop_rate=0.2)
    model.train(training)
    torch.manual_seed(1)
    expected, state = model(draw()), torch.get_rng_state()
    torch.manual_seed(1)
    with read(model, *tap_names(model), detach=detach) as seen:
        torch.testing.assert_close(model(draw()), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    uncalled = set() if training else {"patch_drop"}  # patches are dropped only in training
    assert set(seen) == set(tap_names(model)) - uncalled
    assert all(isinstance(tensor, torch.Tensor) for tensor in seen.values())


def test_what_is_read_is_cut_off_the_graph_unless_asked_for():
    model = make()
    for detach in (True, False):
        with read(model, "encoder.blocks.*", "encoder.blocks.*.attn.*", detach=detach) as seen:
            model(draw())
        assert {tensor.requires_grad for tensor in seen.values()} == {not detach}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_logits_reach_maps_and_stay_right(variant):
    model, images = make("sdpa", **VARIANTS[variant]), draw().requires_grad_()
    (expected,) = torch.autograd.grad(model(images)[:, 2].sum(), images)
    with read(model, "encoder.blocks.*.attn.maps", "encoder.blocks.1", detach=False) as seen:
        score = model(images)[:, 2].sum()
    gradient, of_maps, of_block = torch.autograd.grad(
        score, [images, seen["encoder.blocks.1.attn.maps"], seen["encoder.blocks.1"]]
    )
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
    assert of_block.abs().amax() > 0

    def replay(change):
        """The score with one probability of the second block altered, from there on."""
        block, relations = model.encoder.blocks[1], model.embed(draw())[1] or [None] * 3
        with read(model, "encoder.blocks.0", "encoder.blocks.1.attn.maps") as parts:
            model(draw())
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
def test_each_forward_fills_anew():
    model = make()
    with read(model, "head") as seen:
        for images in (draw(), 2 * draw()):
            torch.testing.assert_close(model(images), seen["head"], rtol=0, atol=0)


def test_hooks_go_even_after_an_error():
    model = make()
    with pytest.raises(ShapeError, match="images 4x20 px"), read(model, *tap_names(model)):
        model(draw()[:, :, :4])
    assert hooks(model) == 0
    with pytest.raises(UnknownNameError), read(model, "head", "hed"):
        pass
    assert hooks(model) == 0


def test_a_star_does_not_reach_over_a_dot():
    model = make()
    with read(model, "encoder.blocks.*") as seen:
        model(draw())
        assert hooks(model) == 3
    assert list(seen) == [f"encoder.blocks.{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("pattern", "way_out"),
    [("encoder.blocks.7.mlp", "did you mean encoder.blocks.2.mlp?"), ("encoder.blocks.*.attn.map", "did you mean ")],
)
def test_an_unknown_pattern_gets_the_nearest_name(pattern, way_out):
    with pytest.raises(UnknownNameError) as caught, read(make(), "head", pattern):
        pass
    assert str(caught.value).startswith(f"tap={pattern}: no part of this model has such a name; {way_out}")


@torch.no_grad()
def test_attention_is_read_in_a_merging_model_too():
    merging = merge_tokens(make(), [4, 3, 0])
    with read(merging, "encoder.blocks.*.attn.maps", "encoder.blocks.*.attn") as seen:
        merging(draw())
    for number, length in enumerate((16, 12, 9)):
        maps = seen[f"encoder.blocks.{number}.attn.maps"]
        assert maps.shape == (2, 5, length, length)
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 5, length, dtype=torch.float64))
        assert seen[f"encoder.blocks.{number}.attn"].shape == (2, length, 40)
