import pytest
import torch

from vitreous.errors import ConfigError
from vitreous.model.build import build_model
from vitreous.model.change.reshape import change_channels
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer


def model(in_chans: int, stem: str = "linear") -> VisionTransformer:
    config = ModelConfig(
        img_size=(8, 12), patch_size=4, in_chans=in_chans, num_classes=5, embed_dim=16, depth=1, num_heads=2, stem=stem
    )  # type: ignore[arg-type]
    return build_model(config, generator=torch.Generator().manual_seed(0)).eval()


def test_gray_image_in_three_channels_gives_what_it_gave() -> None:
    gray, images = model(1), torch.randn(2, 1, 8, 12)
    colour = change_channels(gray, 3)
    assert colour.config.in_chans == 3
    torch.testing.assert_close(colour(images.expand(-1, 3, -1, -1)), gray(images), rtol=1e-5, atol=1e-6)


def test_gray_copy_sees_what_the_colour_model_sees_in_a_gray_image() -> None:
    colour, images = model(3), torch.randn(2, 1, 8, 12)
    gray = change_channels(colour, 1)
    torch.testing.assert_close(gray(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-6)


def test_model_of_these_channels_is_itself() -> None:
    given = model(3)
    assert change_channels(given, 3) is given


@pytest.mark.parametrize(("has", "wanted", "stem"), [(3, 4, "linear"), (1, 3, "conv")])
def test_what_cannot_be_changed_is_told(has: int, wanted: int, stem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        change_channels(model(has, stem), wanted)
    assert str(caught.value) == (
        f"data.in_chans={wanted}: the model takes {has}, and its model.stem={stem} cannot be changed to {wanted}; "
        f"use data.in_chans={has}"
    )
