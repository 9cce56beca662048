"""Overfitting one batch: sound settings succeed; a hopeless learning rate is an error with the numbers."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vitreous.data.loader import Batch
from vitreous.errors import RunError
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.measure.overfit import overfit_one_batch

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


def test_sound_settings_overfit_a_batch(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    found = overfit_one_batch(make_config(), batch, "fp32")
    assert (found.num_images, found.accuracy) == (32, 1.0)
    assert found.loss < found.first_loss
    assert 1 < found.steps <= 200


def test_student_of_a_teacher_is_checked_on_its_labels(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    student = make_config(**{"objective.teacher": "/runs/big", "objective.distill": "feature"})
    assert overfit_one_batch(student, batch, "fp32") == overfit_one_batch(make_config(), batch, "fp32")


def test_check_is_deterministic(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    assert overfit_one_batch(make_config(), batch, "fp32") == overfit_one_batch(make_config(), batch, "fp32")


def test_learning_rate_that_is_too_low_is_an_error(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    with pytest.raises(
        RunError, match=r"^train\.overfit_one_batch: only \d+ of 32 training images are right after 200 steps on them"
    ) as caught:
        overfit_one_batch(make_config(**{"optim.lr": 1e-9}), batch, "fp32")
    assert str(caught.value).endswith("and optim.lr=1e-09")


def test_loss_that_is_not_finite_is_an_error_at_once(make_config: Callable[..., RunConfig], batch: Batch) -> None:
    broken = dataclasses.replace(batch, images=batch.images * float("nan"))
    with pytest.raises(RunError, match=r"after 1 step on them \(loss nan at first, nan at last\)"):
        overfit_one_batch(make_config(), broken, "fp32")
