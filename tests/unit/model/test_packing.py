import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.errors import ConfigError, ShapeError
from vitreous.model import ModelConfig, build_model
from vitreous.model.merge import merge_tokens
from vitreous.model.packing import forward_packed, pack

PLAIN = ModelConfig(
    img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=40, depth=2, num_heads=5, mlp_ratio=2.0,
    dynamic_img_size=True,
)  # fmt: skip
VARIANTS = {
    "plain": {},
    "mean": {"pool": "mean", "position_resize": "google"},
    "max": {"pool": "max", "position": "sincos2d"},
    "map": {"pool": "map", "position": "sinusoidal", "norm_order": "post"},
    "sequence": {"pool": "sequence", "fc_norm": True},
    "distilled": {"distill_token": True, "layer_scale": 0.3},
    "axial": {"rotary": "axial", "num_registers": 2, "position": "none"},
    "mixed": {"rotary": "mixed", "qk_norm": True},
    "dinov3": {"rotary": "dinov3", "num_registers": 4, "key_bias": False},
    "locality": {"locality": True, "attn_gate": True},
    "conv": {"stem": "conv"},
    "shifted": {"stem": "shifted"},
}
SIZES = [(12, 20), (4, 8), (20, 8), (4, 4), (12, 20)]


def make(dtype=torch.float64, kernel="auto", **changes):
    model = build_model(dataclasses.replace(PLAIN, **changes), generator=torch.Generator().manual_seed(0)).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    for block in model.encoder.blocks:
        block.attn.kernel = kernel
    return model.eval()


def draw(sizes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(3, height, width, dtype=dtype, generator=generator) for height, width in sizes]


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_packed_image_scores_as_it_does_alone(variant, kernel, dtype, atol):
    model, images = make(dtype, kernel, **VARIANTS[variant]), draw(SIZES, dtype)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(forward_packed(model, images), alone, rtol=0, atol=atol)


@settings(max_examples=25, deadline=None)
@given(
    grids=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=6),
    rotary=st.sampled_from(["none", "axial", "mixed", "dinov3"]),
    pool=st.sampled_from(["token", "mean", "sequence"]),
    room=st.integers(0, 30),
)
@torch.no_grad()
def test_no_packing_changes_a_score(grids, rotary, pool, room):
    model, images = make(rotary=rotary, pool=pool), draw([(4 * rows, 4 * columns) for rows, columns in grids])
    alone = torch.cat([model(image[None]) for image in images])
    longest = max(rows * columns for rows, columns in grids) + model.num_prefix_tokens
    torch.testing.assert_close(
        forward_packed(model, images, max_tokens=longest + room), alone, rtol=0, atol=1e-10
    )  # fmt: skip


def test_gradients_of_a_packed_image_are_its_own():
    model, images = make(rotary="mixed"), [image.requires_grad_() for image in draw(SIZES[:3])]
    (gradient,) = torch.autograd.grad(forward_packed(model, images)[1].square().sum(), images[1])
    (expected,) = torch.autograd.grad(model(images[1][None])[0].square().sum(), images[1])
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
    unseen = torch.autograd.grad(forward_packed(model, images)[1].sum(), images[2])[0]
    torch.testing.assert_close(unseen, torch.zeros_like(unseen), rtol=0, atol=0)


@torch.no_grad()
def test_dropped_patches_pack_too():
    model = make(patch_drop_rate=0.4, rotary="axial").train()
    assert forward_packed(model, draw(SIZES)).isfinite().all()


def test_first_fit_decreasing_fills_gaps_with_the_small():
    assert pack([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]
    assert pack([], 10) == []


@given(lengths=st.lists(st.integers(1, 50), max_size=40), room=st.integers(0, 60))
def test_packing_holds_every_image_once_and_no_sequence_is_too_long(lengths, room):
    most = max(lengths, default=1) + room
    sequences = pack(lengths, most)
    assert sorted(number for sequence in sequences for number in sequence) == list(range(len(lengths)))
    assert all(0 < sum(lengths[number] for number in sequence) <= most for sequence in sequences)
    assert len(sequences) <= 2 * sum(lengths) / most + 1  # no two are both half empty


def test_an_image_that_no_sequence_holds_is_named():
    with pytest.raises(ConfigError) as caught:
        pack([3, 12, 5], 10)
    assert str(caught.value) == "max_tokens=10: image 1 has 12 tokens; use 12 or more, or smaller images"


def test_a_model_of_one_size_does_not_pack():
    with pytest.raises(ConfigError) as caught:
        forward_packed(make(dynamic_img_size=False), draw(SIZES))
    assert str(caught.value) == (
        "model.dynamic_img_size=False: takes images of 12x20 px alone; build the model with dynamic_img_size=True"
    )


def test_a_merging_model_does_not_pack():
    with pytest.raises(ConfigError, match="5 images in one sequence: their tokens would merge with each other; "):
        forward_packed(merge_tokens(make(), 2), draw(SIZES))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "0 images: there is nothing to pack; "),
        ([torch.zeros(2, 3, 12, 20)], r"an image of 4 dimensions: must be \[channels, height, width\]; "),
        (draw([(12, 18)]), "images 12x18 px: not tiled by 4 px patches; "),
        ([torch.zeros(2, 12, 20)], "images of 2 channels: the model takes 3; "),
    ],
)
def test_what_is_no_image_is_refused(images, message):
    with pytest.raises(ShapeError, match=message):
        forward_packed(make(), images)
