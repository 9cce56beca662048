"""Removal of patches on a GPU against the same on the CPU; skipped without a CUDA or MPS device."""

import pytest
import torch
from tests.unit.use.explain.removal_models import KINDS, draw_images, make_model

from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.removal.exact_shapley import exact_shapley
from vitreous.use.explain.target import Target

HAS_CUDA = torch.cuda.is_available()
GPU = torch.device("cuda" if HAS_CUDA else "mps")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (HAS_CUDA or torch.backends.mps.is_available()), reason="needs a CUDA or MPS device"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_without_patches_are_those_of_the_cpu(kind: str) -> None:
    model, images = make_model(kind).float(), draw_images().float()
    expected = exact_shapley(model, images, Target(0), precision="fp32")
    model, images = model.to(GPU), images.to(GPU)
    got = exact_shapley(model, images, Target(0), precision="fp32")
    torch.testing.assert_close(got.scores, expected.scores, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got.values, expected.values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["occlusion", "shapley"])
def test_values_are_returned_on_the_device_of_the_images(name: str) -> None:
    model, images = make_model().float(), draw_images().float()
    target = Target(torch.tensor([1, 3]))
    expected = METHODS[name](model, images, target).values
    got = METHODS[name](model.to(GPU), images.to(GPU), target).values
    assert got.device.type == GPU.type
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-3, atol=1e-3)
