"""Rehearsal: sound settings learn a batch by heart, a hopeless rate does not and is told with the numbers."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vitreous.data.loader import Batch
from vitreous.errors import RunError
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.measure.overfit import rehearse

SMALL = {
    "data.source": "/photos", "data.img_size": (8, 12), "data.in_chans": 3, "data.num_classes": 5,
    "model.patch_size": 4, "model.embed_dim": 24, "model.depth": 2, "model.num_heads": 2, "model.drop_path_rate": 0.5,
    "optim.lr": 5e-3,
}  # fmt: skip


@pytest.fixture
def make_config() -> Callable[..., RunConfig]:
    return lambda **changes: keys.assemble("by-hand", SMALL | changes)


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(40, 3, 8, 12, generator=generator)
    return Batch(images, torch.randint(5, (40,), generator=generator), np.arange(40))


def test_a_sound_run_learns_a_batch_by_heart(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    found = rehearse(make_config(), batch, "fp32")
    assert (found.num_images, found.accuracy) == (32, 1.0)
    assert found.loss < found.first_loss
    assert 1 < found.steps <= 200


def test_it_is_the_same_each_time(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    assert rehearse(make_config(), batch, "fp32") == rehearse(make_config(), batch, "fp32")


def test_a_rate_that_learns_nothing_is_told(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    with pytest.raises(
        RunError, match=r"^train\.overfit_one_batch: \d+ of 32 training images were right after 200 steps on them"
    ) as caught:
        rehearse(make_config(**{"optim.lr": 1e-9}), batch, "fp32")
    assert str(caught.value).endswith("and optim.lr=1e-09")


def test_a_loss_that_is_not_finite_ends_it(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    broken = dataclasses.replace(batch, images=batch.images * float("nan"))
    with pytest.raises(RunError, match=r"after 1 steps on them \(loss nan at first, nan at last\)"):
        rehearse(make_config(), broken, "fp32")
