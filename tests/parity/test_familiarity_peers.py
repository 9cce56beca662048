"""Scores of images that are unlike the training images are those of pytorch-ood, on the same features and logits.

pytorch-ood is under the Apache License 2.0 and is not installed with the tests; without it, they are skipped.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from vitreous.training.fit.familiarity import Familiarity

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other library
Peer = Callable[[str], Any]
WIDTH, CLASSES = 7, 3


def features(num_images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of three classes, rounded like the stored ones, and their classes."""
    draws = torch.Generator().manual_seed(seed)
    centers = 2 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(num_images) % CLASSES
    made = centers[classes] + torch.randn(num_images, WIDTH, generator=draws) * torch.linspace(0.2, 1.5, WIDTH)
    return F.normalize(made, dim=1).half(), classes


def fitted(*, shrinkage: float = 0.0) -> Familiarity:
    return Familiarity(*features(600, 1), is_multilabel=False, shrinkage=shrinkage)


def new_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of any length, a part of them far from all classes, and logits."""
    draws = torch.Generator().manual_seed(5)
    near = features(40, 2)[0].float() * torch.linspace(0.5, 9, 40)[:, None]
    return torch.cat([near, 3 * torch.randn(20, WIDTH, generator=draws)]), 4 * torch.randn(60, CLASSES, generator=draws)


def test_energy_is_that_of_pytorch_ood(peer: Peer) -> None:
    """The same formula at temperature 1; for several labels per image they have none, ours is JointEnergy."""
    detector, (found, logits) = peer("pytorch_ood.detector").EnergyBased, new_images()
    theirs = detector(None).predict_logits(logits.double())
    torch.testing.assert_close(fitted().scores("energy", found, logits), theirs, rtol=0, atol=1e-12)


def test_distance_to_the_kth_neighbor_is_that_of_pytorch_ood(peer: Peer) -> None:
    """On features of length 1; their k is a number, by default 50, ours a share of the training images, here 3."""
    detector, known = peer("pytorch_ood.detector").KNN(None, k=3), fitted()
    found, logits = new_images()
    detector.fit_features(F.normalize(known.features.double(), dim=1), known.groups)
    theirs = detector.predict_features(found.double())
    torch.testing.assert_close(known.scores("neighbors", found, logits), theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_mahalanobis_distance_is_that_of_pytorch_ood_without_shrinkage(shrinkage: float, peer: Peer) -> None:
    """Theirs is half of the squared distance, under the sum instead of the mean of the products of centered features.

    They take features of any length, so they get ours of length 1 (Mahalanobis++), and never shrink the covariance.
    With shrinkage, which we choose by Ledoit and Wolf, images are ranked differently. They add 1e-6 to the diagonal of
    the sum, we add 1e-8 to that of the mean.
    """
    detector, known = peer("pytorch_ood.detector").Mahalanobis(None), fitted(shrinkage=shrinkage)
    found, logits = new_images()
    unit = F.normalize(known.features.double(), dim=1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of their means and covariance
    try:
        detector.fit_features(unit, known.groups)
        theirs = (2 * len(unit) * detector.predict_features(F.normalize(found.double(), dim=1))).sqrt()
    finally:
        torch.set_default_dtype(before)
    ours = known.scores("mahalanobis", found, logits)
    is_same = torch.allclose(ours, theirs, rtol=1e-4, atol=0)
    assert is_same == (shrinkage == 0)
    assert torch.equal(ours.argsort(), theirs.argsort()) == (shrinkage == 0)
