import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitreous.data.loader import Batch
from vitreous.training.fit.evaluate import (
    Score,
    calibrated_loss,
    compute_logits,
    cross_fitted_temperatures,
    fit_temperature,
    score,
)


def wilson(num_correct: int, num_images: int) -> tuple[float, float]:
    """Wilson's formula (1927), written out; 1.959964 is the 97.5% quantile of the normal distribution."""
    z, share = 1.959963984540054, num_correct / num_images
    center = (share + z**2 / (2 * num_images)) / (1 + z**2 / num_images)
    spread = z / (1 + z**2 / num_images) * math.sqrt(share * (1 - share) / num_images + z**2 / (4 * num_images**2))
    return center - spread, center + spread


@pytest.mark.parametrize(("num_correct", "num_images"), [(0, 1), (1, 1), (0, 7), (7, 7), (11, 12), (9_123, 10_000)])
def test_interval_is_wilsons_formula(num_correct: int, num_images: int) -> None:
    assert Score(num_images, num_correct, 0.0).interval == pytest.approx(wilson(num_correct, num_images), abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_interval_contains_the_accuracy_and_stays_within_zero_and_one(counts: tuple[int, int]) -> None:
    result = Score(*counts, loss=0.5)
    low, high = result.interval
    assert 0 <= low <= result.accuracy + 1e-12
    assert result.accuracy - 1e-12 <= high <= 1
    assert low < high


def test_score_counts_correct_images_and_averages_the_loss() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0], [0.0, 0.5, 0.0]])
    labels = torch.tensor([0, 1, 0, 2])
    result = score(logits, labels, ("a", "b", "c"))
    losses = [
        math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(logits.tolist(), labels, strict=True)
    ]
    assert (result.num_images, result.num_correct, result.accuracy) == (4, 2, 0.5)
    assert result.loss == pytest.approx(sum(losses) / 4, rel=1e-6)
    assert result.as_dict() == {
        "accuracy": 0.5, "interval_95": list(result.interval), "loss": result.loss, "num_images": 4, "num_correct": 2,
        "majority_class": "a", "majority_share": 0.5, "balanced_accuracy": pytest.approx((1 / 2 + 1 + 0) / 3),
        "never_predicted": [],
    }  # fmt: skip


def calibrated(num_images: int, num_classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Calibrated logits, and labels drawn from their probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(num_images, num_classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_known_temperature_is_found(temperature: float) -> None:
    logits, labels = calibrated(20_000)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_temperature_minimizes_the_loss() -> None:
    logits, labels = calibrated(300)
    temperature = fit_temperature(logits, labels)
    losses = {factor: score(logits / (temperature * factor), labels, "abcde").loss for factor in (0.98, 1.0, 1.02)}
    assert min(losses, key=lambda factor: losses[factor]) == 1.0


def test_temperature_is_one_if_all_images_are_correct() -> None:
    logits, _ = calibrated(50)
    assert fit_temperature(logits, logits.argmax(dim=1)) == 1.0


def test_temperature_is_the_largest_allowed_if_all_images_are_wrong() -> None:
    logits, _ = calibrated(50)
    assert fit_temperature(logits, logits.argmin(dim=1)) == pytest.approx(20.0, rel=1e-3)


class DropoutModel(nn.Module):
    """A linear model whose logits are random in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(self.layer(images.flatten(1)))


def make_batches() -> list[Batch]:
    images, labels = torch.randn(5, 1, 2, 3), torch.tensor([3, 0, 2, 1, 3])
    cuts = [(0, 2), (2, 4), (4, 5)]
    return [Batch(images[a:b], labels[a:b], np.arange(a, b)) for a, b in cuts]


def test_models_that_differ_only_in_confidence_have_the_same_calibrated_loss() -> None:
    generator = torch.Generator().manual_seed(5)
    logits, labels = torch.randn(200, 4, generator=generator), torch.randint(4, (200,), generator=generator)
    logits[torch.arange(200), labels] += 2
    found = calibrated_loss(logits, labels)
    assert found == pytest.approx(calibrated_loss(0.2 * logits, labels), rel=1e-5)
    assert found <= min(score(factor * logits, labels).loss for factor in (0.2, 0.5, 1.0, 2.0))
    assert calibrated_loss(10.0 * torch.eye(4), torch.arange(4)) == 0


def test_images_sorted_by_class_all_have_a_part_in_the_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(400) // 100
    logits = 8.0 * torch.eye(4)[labels]
    logits[torch.arange(250, 400, 3)] = logits[0].clone()  # all images of the first class are correct
    exact = calibrated_loss(logits, labels)
    monkeypatch.setattr("vitreous.training.fit.evaluate._MOST_FITTED", 400)
    assert calibrated_loss(logits, labels) == pytest.approx(exact, rel=0.1)


def test_a_more_accurate_model_is_preferred_to_a_more_confident_one() -> None:
    true = torch.arange(100) % 4
    accurate, confident = 2.0 * torch.eye(4)[true], 7.0 * torch.eye(4)[true]
    accurate[0], confident[:4] = accurate[1], confident[4:8].roll(1, dims=0)
    losses = [score(logits, true).loss for logits in (accurate, confident)]
    assert losses[0] > losses[1]
    assert calibrated_loss(accurate, true) < calibrated_loss(confident, true)


def test_cross_fitted_temperature_of_an_image_does_not_depend_on_its_own_label() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(43, 3, generator=generator), torch.randint(3, (43,), generator=generator)
    before = cross_fitted_temperatures(logits, labels)
    assert before.shape == (43, 1)
    for image in (0, 17, 42):
        others = torch.arange(43) % 5 != image % 5
        assert float(before[image]) == pytest.approx(fit_temperature(logits[others], labels[others]))
        changed = labels.clone()
        changed[image] = (labels[image] + 1) % 3
        after = cross_fitted_temperatures(logits, changed)
        assert after[image] == before[image]
        assert (after != before).any()


def test_logits_are_in_order_and_without_dropout_or_gradient() -> None:
    model, batches = DropoutModel(), make_batches()
    logits, labels = compute_logits(model, batches, "fp32")
    images = torch.cat([batch.images for batch in batches])
    expected = model.layer(images.flatten(1))
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(labels, torch.tensor([3, 0, 2, 1, 3]))
    assert not logits.requires_grad


def test_bf16_logits_are_returned_as_float32() -> None:
    model, batches = DropoutModel(), make_batches()
    exact, _ = compute_logits(model, batches, "fp32")
    logits, _ = compute_logits(model, batches, "bf16")
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, exact)
    torch.testing.assert_close(logits, exact, rtol=0.05, atol=0.05)
