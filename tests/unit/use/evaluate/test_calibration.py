"""Calibration of probabilities, compared with scikit-learn, loops over bins, and models whose calibration is known."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, top_k_accuracy_score

from vitreous.use.evaluate.calibration import (
    calibration_error,
    measure_calibration,
    reliability_curve,
    top_k_accuracy,
    top_label,
)

CLASSES = 4


def draw(num_images: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and classes: calibrated if `sharpness` is 1, too confident above."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(num_images, CLASSES))
    fair = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (fair.cumsum(axis=1) < generator.random((num_images, 1))).sum(axis=1).clip(max=CLASSES - 1)
    sharp = np.exp(sharpness * logits)
    return sharp / sharp.sum(axis=1, keepdims=True), true


def test_proper_scores_are_those_of_scikit_learn() -> None:
    probabilities, true = draw(200, 1)
    found = measure_calibration(probabilities, true)
    assert found.nll == pytest.approx(log_loss(true, probabilities, labels=range(CLASSES)))
    one_hot = np.eye(CLASSES)[true]
    assert found.brier == pytest.approx(sum(((probabilities - one_hot) ** 2).mean(axis=0)))
    confidence, is_correct = top_label(probabilities, true)
    parts = found.miscalibration - found.discrimination + found.uncertainty
    assert parts == pytest.approx(brier_score_loss(is_correct, confidence))
    assert min(found.miscalibration, found.discrimination) >= 0


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_accuracy_is_that_of_scikit_learn(k: int) -> None:
    probabilities, true = draw(150, 2)
    assert top_k_accuracy(probabilities, true, k) == pytest.approx(top_k_accuracy_score(true, probabilities, k=k))


def test_a_constant_prediction_is_not_right_for_every_class() -> None:
    assert top_k_accuracy(np.full((5, 3), 1 / 3), np.array([0, 1, 2, 0, 1]), 1) == 0.0


def test_calibration_error_equals_a_loop_over_bins() -> None:
    confidence, is_correct = top_label(*draw(300, 3))
    confidence[:3] = 1.0, 1 / 15, 0.4  # the ends of bins
    expected = 0.0
    for number in range(15):
        inside = (confidence > number / 15 + 1e-12 * (number > 0)) & (confidence <= (number + 1) / 15 + 1e-12)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - is_correct[inside].mean())
    assert calibration_error(confidence, is_correct) == pytest.approx(expected)


def test_chance_gives_a_calibrated_model_an_error_that_falls_with_the_number_of_images() -> None:
    few, many = (measure_calibration(*draw(num, 4)).ece_of_calibrated for num in (100, 10_000))
    assert 0.05 < few < 0.12  # about .087 with 15 bins and 100 images
    assert many < 0.02


def test_a_calibrated_model_is_called_miscalibrated_in_five_percent_of_the_cases() -> None:
    found = [measure_calibration(*draw(200, seed)) for seed in range(200)]
    rejected = np.mean([one.ece > one.ece_limit for one in found])
    assert 0.01 <= rejected <= 0.11
    assert "no miscalibration is found" in next(one for one in found if one.ece <= one.ece_limit).sentence


def test_an_overconfident_model_is_found() -> None:
    found = measure_calibration(*draw(400, 5, sharpness=3.0))
    assert found.ece > 2 * found.ece_of_calibrated
    assert "the probabilities are off" in found.sentence
    assert found.confidence > 0.8


def test_reliability_of_a_calibrated_model_lies_in_the_band() -> None:
    curve = reliability_curve(*draw(1_000, 6))
    assert (np.diff(curve.confidence) >= 0).all()
    assert (np.diff(curve.accuracy) >= 0).all()
    inside = (curve.low <= curve.accuracy + 1e-9) & (curve.accuracy <= curve.high + 1e-9)
    assert inside.mean() > 0.9
    off = reliability_curve(*draw(1_000, 6, sharpness=3.0))
    assert ((off.accuracy < off.low) | (off.accuracy > off.high)).mean() > 0.5


def test_same_seed_gives_the_same_comparison() -> None:
    assert measure_calibration(*draw(100, 7)) == measure_calibration(*draw(100, 7))
