import pytest
import torch

from vitreous.model.residual import DropPath, LayerScale, drop_path_rates


def test_drop_path_drops_whole_images_and_scales_the_others():
    torch.manual_seed(0)
    tokens = torch.randn(64, 7, 10)
    dropped = DropPath(0.25)(tokens)
    gone = (dropped == 0).all(dim=(1, 2))
    assert 4 < gone.sum() < 32
    torch.testing.assert_close(dropped[~gone], tokens[~gone] / 0.75)


def test_drop_path_keeps_expectation():
    torch.manual_seed(0)
    dropped = DropPath(0.3)(torch.ones(40_000, 1, 2))
    torch.testing.assert_close(dropped.mean(dim=0), torch.ones(1, 2), rtol=0, atol=0.02)


@pytest.mark.parametrize("drop_path", [DropPath(0.3).eval(), DropPath(0.0)])
def test_drop_path_costs_nothing_in_evaluation_and_at_rate_zero(drop_path):
    tokens = torch.randn(2, 7, 10)
    assert drop_path(tokens) is tokens


def test_drop_path_rates_rise_linearly_to_the_last():
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.3]


def test_drop_path_prints_its_rate():
    assert repr(DropPath(0.3)) == "DropPath(rate=0.3)"


def test_a_constant_schedule_gives_every_block_the_same():
    assert drop_path_rates(0.3, 4, "constant") == [0.3, 0.3, 0.3, 0.3]
    assert drop_path_rates(0.3, 1, "constant") == [0.3]


def test_layer_scale_scales_each_channel():
    scale, tokens = LayerScale(10, initial=1e-4), torch.randn(2, 7, 10)
    torch.testing.assert_close(scale(tokens), tokens * 1e-4, rtol=0, atol=0)
    torch.nn.init.normal_(scale.gamma)
    expected = torch.stack([tokens[..., channel] * scale.gamma[channel] for channel in range(10)], dim=-1)
    torch.testing.assert_close(scale(tokens), expected, rtol=0, atol=0)
