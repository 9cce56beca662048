"""Relevance is drawn where tokens see the image: compared with gradients of stems, and with an object that is shown."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model import ModelConfig, build_model
from vitreous.model.parts.stem import center_seen
from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.model.vit import VisionTransformer
from vitreous.use.explain.check.orders import upsampled
from vitreous.use.explain.explainer import Explainer
from vitreous.use.explain.pictures.geometry import View

STEMS = ("linear", "normed", "shifted", "conv", "cct")
SIZE = (48, 64)


def build(stem: str, **changes: Any) -> VisionTransformer:
    """Build a float64 model for images of 48x64 px."""
    shape = {"img_size": SIZE, "in_chans": 1, "patch_size": 8, "num_classes": 3, "embed_dim": 24, "depth": 1}
    return build_model(ModelConfig(**{"num_heads": 3, "stem": stem, **shape, **changes})).double().eval()


def without_norms(model: VisionTransformer) -> ImageTokenizer:
    """Return the stem of the model without norms over the image, through which a token sees a little of every pixel."""
    for name, module in list(model.tokenizer.named_modules()):
        if isinstance(module, nn.GroupNorm):
            model.tokenizer.set_submodule(name, nn.Identity())
    return model.tokenizer


def centroid(seen: Tensor) -> list[float]:
    """Return the mean row and column, in px from the upper left corner of the image, weighted by what is seen there."""
    rows, columns = (torch.arange(side, dtype=seen.dtype) + 0.5 for side in seen.shape)
    return [float(seen.sum(dim=1) @ rows / seen.sum()), float(seen.sum(dim=0) @ columns / seen.sum())]


def placed(model: VisionTransformer, row: int, column: int) -> list[float]:
    """Return where relevance of a token is drawn."""
    view = View.of(SIZE, SIZE, "squash", model.tokenizer.token_center)
    return [float(places[at]) for places, at in zip(view.centers(model.config.grid_size), (row, column), strict=True)]


@pytest.mark.parametrize("patch_size", [4, 8])
@pytest.mark.parametrize("stem", STEMS)
def test_a_token_lies_at_the_centroid_of_its_gradient(stem: str, patch_size: int) -> None:
    """For random weights and images: the mean over 10 models of the squared gradient of the embedding, no attention."""
    seen, row, column = torch.zeros(SIZE, dtype=torch.float64), 16 // patch_size, 16 // patch_size
    for seed in range(10):
        torch.manual_seed(seed)
        model = build(stem, patch_size=patch_size)
        images = torch.randn(20, 1, *SIZE, dtype=torch.float64, requires_grad=True)
        tokens = without_norms(model)(images)[:, row * model.config.grid_size[1] + column]
        (gradient,) = torch.autograd.grad((tokens @ torch.randn(24, dtype=torch.float64)).sum(), images)
        seen += gradient.square().sum(dim=(0, 1))
    assert centroid(seen) == pytest.approx(placed(model, row, column), abs=0.35)


@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_the_center_of_symmetric_convolutions_is_exact(patch_size: int) -> None:
    model = build("conv", patch_size=patch_size)
    tokenizer, images = without_norms(model), torch.ones(1, 1, *SIZE, dtype=torch.float64, requires_grad=True)
    for weight in tokenizer.parameters():
        nn.init.ones_(weight)
    columns = model.config.grid_size[1]
    (gradient,) = torch.autograd.grad(tokenizer(images)[0, columns + 1, 0], images)
    assert centroid(gradient[0, 0]) == pytest.approx(placed(model, 1, 1), abs=1e-9)
    assert placed(model, 1, 1) == [patch_size + 0.5, patch_size + 0.5]


@pytest.mark.parametrize("patch_size", [8, 16])
def test_the_last_token_is_drawn_around_the_centroid_of_its_gradient(patch_size: int) -> None:
    """It was drawn as a flat block from its center to the border, although it hardly sees the pixels at the border."""
    seen = torch.zeros(SIZE, dtype=torch.float64)
    for seed in range(10):
        torch.manual_seed(seed)
        model = build("conv", patch_size=patch_size)
        images = torch.randn(20, 1, *SIZE, dtype=torch.float64, requires_grad=True)
        tokens = without_norms(model)(images)[:, -1]
        (gradient,) = torch.autograd.grad((tokens @ torch.randn(24, dtype=torch.float64)).sum(), images)
        seen += gradient.square().sum(dim=(0, 1))
    values = np.zeros(model.config.grid_size, np.float32)
    values[-1, -1] = 1
    drawn = View.of(SIZE, SIZE, "squash", model.tokenizer.token_center).map_of(values)
    assert centroid(torch.from_numpy(drawn).double()) == pytest.approx(centroid(seen), abs=0.6)
    assert drawn[-1, -1] < 0.05 * drawn.max()


def test_the_center_follows_from_kernel_stride_and_padding() -> None:
    """Against the first and last pixel that the first output sees, found by a gradient on a padded image."""
    layers = [nn.Conv2d(1, 1, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(1, 1, 5, stride=3)]
    # Of the first layer: pixels -3 to 3. The pooling sees two of its outputs, the last layer five of the pooling.
    assert center_seen(layers[:1]) == 0.5
    assert center_seen(layers[:3]) == 0.5 + 1
    assert center_seen(layers) == 0.5 + 1 + 2 * 4


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_pixels_count_for_the_token_with_the_nearest_center(stem: str) -> None:
    tokenizer = build(stem).tokenizer
    centers = (torch.arange(6) + tokenizer.token_center) * 8
    distances = (torch.arange(48)[:, None] + 0.5 - centers).abs()
    nearest = tokenizer.nearest_tokens(6)
    torch.testing.assert_close(distances.gather(1, nearest[:, None])[:, 0], distances.amin(dim=1))
    assert nearest.bincount().tolist() == ([8] * 6 if stem == "linear" else [4, 8, 8, 8, 8, 12])


def test_the_check_ranks_pixels_by_the_map_that_is_drawn() -> None:
    values = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(0))
    view = View.of(SIZE, SIZE, "squash", 0.0625)
    expected = np.stack([view.map_of(each.numpy()) for each in values])
    np.testing.assert_allclose(upsampled(values, SIZE, 0.0625).view(2, *SIZE).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["grad-cam", "integrated-gradients", "occlusion", "attention-attribution"])
@pytest.mark.parametrize("stem", ["linear", "conv", "cct"])
@pytest.mark.parametrize("place", [(17, 21), (24, 32), (27, 43)])
def test_relevance_of_a_small_bright_object_peaks_at_the_object(stem: str, place: tuple[int, int], method: str) -> None:
    """For a model that scores how bright the image is: weights are positive, and blocks and norms add nothing."""
    model = build(stem, pool="mean", position="none", final_norm=False).float()
    without_norms(model)
    with torch.no_grad():
        for weight in model.tokenizer.parameters():
            weight.fill_(0.1 if weight.ndim > 1 else 0)
        for branch in (model.encoder.blocks[0].attn.proj, model.encoder.blocks[0].mlp.fc2):
            nn.init.zeros_(branch.weight)
        model.head.weight.copy_(torch.tensor([[1.0], [0], [0]]).expand(-1, 24))
    explainer = Explainer.from_model(model, Preprocess(SIZE, 1, "squash", mean=(0.0,), std=(1.0,)))
    photo = np.zeros((96, 128), np.uint8)  # twice the size of the model's input
    y, x = place
    photo[2 * y - 2 : 2 * y + 2, 2 * x - 2 : 2 * x + 2] = 255
    found = next(explainer.explain([photo], method, target=0))
    at = centroid(torch.from_numpy(found.heatmap.clip(min=0)).double())
    assert at == pytest.approx([2 * y, 2 * x], abs=7)  # less than half of a patch, which has 16 px here
    peak = np.unravel_index(found.heatmap.argmax(), found.heatmap.shape)
    assert peak == pytest.approx([2 * y, 2 * x], abs=9)
