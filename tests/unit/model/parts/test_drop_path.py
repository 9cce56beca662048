import pytest
import torch

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.encoder import DropPath, LayerScale, drop_path_rates
from vitreous.model.parts.relation import Relation


@pytest.mark.parametrize("rate", [0.04, 0.25])
def test_drop_path_drops_whole_images_and_scales_the_others(rate):
    """Below `SKIP_FROM_RATE` all images go through the branch, above only those that keep it."""
    torch.manual_seed(0)
    tokens = torch.randn(500, 7, 10)
    added = DropPath(rate)(tokens, torch.ones_like) - tokens
    gone = (added == 0).all(dim=(1, 2))
    assert 0.4 * rate < gone.float().mean() < 1.7 * rate
    torch.testing.assert_close(added[~gone], torch.full_like(added[~gone], 1 / (1 - rate)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [0.04, 0.3])
def test_drop_path_keeps_expectation(rate):
    torch.manual_seed(0)
    added = DropPath(rate)(torch.zeros(40_000, 1, 2), torch.ones_like)
    torch.testing.assert_close(added.mean(dim=0), torch.ones(1, 2), rtol=0, atol=0.02)


@pytest.mark.parametrize("drop_path", [DropPath(0.3).eval(), DropPath(0.0)])
def test_drop_path_is_a_plain_sum_in_evaluation_and_at_rate_zero(drop_path):
    tokens = torch.randn(2, 7, 10)
    torch.testing.assert_close(drop_path(tokens, torch.sin), tokens + tokens.sin(), rtol=0, atol=0)


def test_drop_path_rates_rise_linearly_to_the_last():
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.3]


def test_drop_path_prints_its_rate():
    assert repr(DropPath(0.3)) == "DropPath(rate=0.3)"


def test_constant_schedule_gives_every_block_the_same_rate():
    assert drop_path_rates(0.3, 4, "constant") == [0.3, 0.3, 0.3, 0.3]
    assert drop_path_rates(0.3, 1, "constant") == [0.3]


def test_layer_scale_scales_each_channel():
    scale, tokens = LayerScale(10, initial=1e-4), torch.randn(2, 7, 10)
    torch.testing.assert_close(scale(tokens), tokens * 1e-4, rtol=0, atol=0)
    torch.nn.init.normal_(scale.gamma)
    expected = torch.stack([tokens[..., channel] * scale.gamma[channel] for channel in range(10)], dim=-1)
    torch.testing.assert_close(scale(tokens), expected, rtol=0, atol=0)


VARIANTS = {
    "plain": {},
    "rotary_and_dropped_patches": {"rotary": "axial", "patch_drop_rate": 0.4},
    "bias_and_dropped_patches": {"relative_bias": True, "patch_drop_rate": 0.4},
    "post_norm": {"norm_order": "post", "layer_scale": 0.3},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("rate", [0.4, 0.98])
def test_skipping_dropped_images_changes_neither_logits_nor_gradients(monkeypatch, changes, rate):
    config = ModelConfig(
        img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=40, depth=3, num_heads=5,
        drop_path_rate=rate, drop_path_schedule="constant", **changes,
    )  # fmt: skip
    model = build_model(config, generator=torch.Generator().manual_seed(0)).double().train()
    images = torch.randn(6, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for least in (0.0, 2.0):
        monkeypatch.setattr("vitreous.model.parts.encoder.SKIP_FROM_RATE", least)
        torch.manual_seed(3)
        model.zero_grad(set_to_none=True)
        logits = model(images)
        logits.square().sum().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


def test_branch_is_computed_only_for_the_images_that_keep_it():
    seen = []

    def branch(tokens, relation):
        seen.append(len(tokens))
        return tokens

    torch.manual_seed(0)
    tokens = torch.randn(200, 7, 10)
    added = DropPath(0.4)(tokens, branch, Relation())
    kept = ((added - tokens).abs().amax(dim=(1, 2)) > 1e-4).sum()
    assert seen == [kept]
    assert 90 < kept < 150


def test_branch_that_every_image_drops_has_a_gradient_of_zero():
    scale = torch.ones((), requires_grad=True)
    drop_path = DropPath(1 - 1e-9)
    tokens = torch.randn(4, 7, 10)
    added = drop_path(tokens, lambda tokens, relation: tokens * scale, Relation())
    added.sum().backward()
    torch.testing.assert_close(added, tokens, rtol=0, atol=0)
    assert scale.grad == 0
