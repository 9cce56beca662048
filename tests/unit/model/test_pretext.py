from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.pretext import Decoder, with_pretext, without_pretext
from vitreous.model.vit import VisionTransformer

STEMS = ("linear", "shifted", "normed", "conv", "cct")
PLAIN: dict[str, Any] = {
    "img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 0, "embed_dim": 20, "depth": 2, "num_heads": 5,
}  # fmt: skip
ROWS, COLUMNS = 3, 5


def model_with(loss: Any, **changes: Any) -> VisionTransformer:
    generator = torch.Generator().manual_seed(0)
    plain = build_model(ModelConfig(**(PLAIN | changes)), generator=generator)
    return with_pretext(plain, loss, decoder_depth=1, generator=generator).eval()


def some(*, seed: int = 1) -> Tensor:
    return torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(seed))


KEPT = torch.tensor([[0, 7, 8, 14], [1, 3, 4, 12]])


def patches(image: Tensor, number: int) -> Tensor:
    row, column = divmod(number, COLUMNS)
    return image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]


@pytest.mark.parametrize("loss", ["mae", "simmim"])
@pytest.mark.parametrize("stem", STEMS)
def test_pixels_of_hidden_patches_change_no_prediction_whatever_the_stem(loss: str, stem: str) -> None:
    model, images = model_with(loss, stem=stem), some()
    changed = images.clone()
    for image, kept in zip(changed, KEPT.tolist(), strict=True):
        for number in range(ROWS * COLUMNS):
            if number not in kept:
                patches(image, number).mul_(-3).add_(5)
    expected = model(images, KEPT)
    assert expected.shape == (2, 15, 48)
    torch.testing.assert_close(model(changed, KEPT), expected, atol=0, rtol=0)
    patches(changed[0], 7)[:, 0].add_(2)
    moved = (model(changed, KEPT) - expected).abs().amax(dim=(1, 2))
    assert moved[0] > 1e-4
    assert moved[1] == 0


@pytest.mark.parametrize("changes", [{"pool": "token", "num_registers": 2}, {"rotary": "axial"}, {"pool": "map"}])
@pytest.mark.parametrize("loss", ["mae", "simmim", "lejepa"])
def test_every_weight_with_a_gradient_gets_one(loss: str, changes: dict[str, Any]) -> None:
    model = model_with(loss, **changes).train()
    arguments = (some(),) if loss == "lejepa" else (some(), KEPT)
    model(*arguments).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_encoder_of_mae_sees_only_the_visible_tokens() -> None:
    model, seen = model_with("mae", pool="token"), []
    model.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape))
    model(some(), KEPT)
    assert seen == [(2, 1 + 4, 20)]


def test_decoder_puts_tokens_at_their_places_and_the_mask_token_elsewhere() -> None:
    torch.manual_seed(2)
    decoder = Decoder(20, (ROWS, COLUMNS), 48, depth=1).double().eval()
    torch.nn.init.normal_(decoder.mask_token)
    tokens = torch.randn(2, 2 + 4, 20, dtype=torch.float64)  # two prefix tokens
    embedded = tokens.numpy() @ decoder.embed.weight.detach().numpy().T + decoder.embed.bias.detach().numpy()
    width = embedded.shape[2]
    full = np.zeros((2, 2 + 15, width))
    for image in range(2):
        full[image, :2] = embedded[image, :2]
        for number in range(15):
            row, column = divmod(number, COLUMNS)
            kept = KEPT[image].tolist()
            token = decoder.mask_token.detach().numpy()[0, 0]
            token = embedded[image, 2 + kept.index(number)] if number in kept else token
            angles = [at / 10000 ** (i / (width // 4)) for at in (column, row) for i in range(width // 4)]
            half = width // 4
            table = [np.sin(angles[:half]), np.cos(angles[:half]), np.sin(angles[half:]), np.cos(angles[half:])]
            full[image, 2 + number] = token + np.concatenate(table)
    expected = decoder.proj(decoder.blocks(torch.from_numpy(full))[:, 2:])
    torch.testing.assert_close(decoder(tokens, KEPT, (ROWS, COLUMNS)), expected)


@pytest.mark.parametrize("loss", ["mae", "simmim", "lejepa"])
def test_what_is_left_is_the_model_without_a_head(loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = build_model(ModelConfig(**PLAIN), generator=generator).eval()
    left = without_pretext(model_with(loss))
    assert type(left) is VisionTransformer
    assert list(left.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(left(some()), plain(some()))


def test_images_of_another_size_are_reconstructed_too() -> None:
    model = model_with("mae", dynamic_img_size=True)
    kept = torch.tensor([[0, 3], [1, 2]])
    assert model(torch.zeros(2, 3, 8, 8), kept).shape == (2, 4, 48)


def test_all_patches_are_visible_unless_some_are_chosen() -> None:
    model, every = model_with("mae"), torch.arange(15).expand(2, -1)
    torch.testing.assert_close(model(some()), model(some(), every))
