"""Scores and thresholds of several labels per image, compared with scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from vitreous.training.fit.evaluate import fit_temperature, score
from vitreous.training.fit.multilabel import (
    LabelScore,
    _weighted_map,
    best_threshold,
    fit_thresholds,
    map_interval,
    predicted_labels,
    score_task,
)

CLASSES = ("sea", "people", "dog", "sky")


def draw(num: int = 60) -> tuple[Tensor, Tensor]:
    """Logits that know something about 4 labels; no image has the third label."""
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(num, 4, generator=generator) < torch.tensor([0.5, 0.2, 0.0, 0.7])).float()
    return 2 * labels - 1 + 1.5 * torch.randn(num, 4, generator=generator), labels


def test_scores_are_those_of_scikit_learn() -> None:
    logits, labels = draw()
    thresholds = (0.6, 0.2, 0.5, 0.4)
    found = score_task(logits, labels, CLASSES, thresholds, temperature=2.0)
    probabilities, true = (logits / 2).sigmoid().numpy(), labels.numpy()
    predicted, occurs = probabilities >= np.array(thresholds), [0, 1, 3]
    assert isinstance(found, LabelScore)
    assert found.accuracy == metrics.accuracy_score(true, predicted)
    assert found.mean_average_precision == pytest.approx(
        np.mean([metrics.average_precision_score(true[:, n], probabilities[:, n]) for n in occurs])
    )
    assert found.micro_f1 == pytest.approx(metrics.f1_score(true, predicted, average="micro"))
    each = metrics.f1_score(true, predicted, average=None, zero_division=0.0)
    assert found.macro_f1 == pytest.approx(each[occurs].mean())
    assert found.loss == pytest.approx(
        np.mean([metrics.log_loss(true[:, n], logits[:, n].sigmoid().numpy(), labels=[0, 1]) for n in range(4)]),
        rel=1e-5,
    )


@pytest.mark.parametrize("num_labels", [1, 4])
def test_f1_of_a_single_label_that_occurs_is_that_of_the_label(num_labels: int) -> None:
    logits, labels = draw()
    logits, labels = logits[:, :num_labels], labels[:, :num_labels] * torch.eye(num_labels)[0]
    found = score_task(logits, labels, CLASSES[:num_labels])
    assert isinstance(found, LabelScore)
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels[:, 0], logits[:, 0] > 0))
    assert found.micro_f1 == pytest.approx(metrics.f1_score(labels.ravel(), logits.ravel() > 0))


def test_average_precision_of_resampled_images_is_that_of_scikit_learn() -> None:
    draws = np.random.default_rng(3)
    probabilities = draws.integers(0, 8, (40, 3)).astype(np.float32) / 8  # with many ties
    true = draws.random((40, 3)) < np.array([0.5, 0.1, 0.0])
    times = draws.multinomial(40, np.full(40, 1 / 40), size=5)
    found = _weighted_map(probabilities, true, times.T.astype(np.int32))
    for row, counts in zip(found, times, strict=True):
        each = [
            metrics.average_precision_score(true[:, n], probabilities[:, n], sample_weight=counts)
            for n in range(3)
            if (true[:, n] * counts).any()
        ]
        assert row == pytest.approx(np.mean(each))


def test_interval_of_the_mean_average_precision_covers_that_of_other_images() -> None:
    logits, labels = draw(20_000)
    truth = score_task(logits, labels, CLASSES)
    assert isinstance(truth, LabelScore)
    hits, widths = 0, []
    for start in range(0, 4000, 200):
        part = slice(start, start + 200)
        low, high = map_interval(logits[part].sigmoid().numpy(), labels[part].numpy() > 0.5) or (0.0, 0.0)
        hits += low <= truth.mean_average_precision <= high
        widths.append(high - low)
    assert hits >= 17  # of 20; 95% are expected
    assert max(widths) < 0.15


def test_interval_is_the_same_every_time_and_only_in_final_scores() -> None:
    logits, labels = draw()
    found = score_task(logits, labels, CLASSES, with_interval=True).as_dict()
    low, high = found["mean_average_precision_interval_95"]
    assert 0 <= low < found["mean_average_precision"] < high <= 1
    assert score_task(logits, labels, CLASSES, with_interval=True).as_dict() == found
    assert "mean_average_precision_interval_95" not in score_task(logits, labels, CLASSES).as_dict()


def test_perfect_model_and_single_image_have_no_interval() -> None:
    true = draw()[1].numpy() > 0.5
    assert map_interval(true.astype(np.float32), true) is None
    assert map_interval(np.zeros((1, 2), dtype=np.float32), np.ones((1, 2), dtype=bool)) is None


def test_one_label_per_image_is_scored_as_before() -> None:
    logits, labels = draw()
    classes = labels.argmax(dim=1)
    assert score_task(logits, classes, CLASSES) == score(logits, classes, CLASSES)


def test_threshold_has_the_highest_f1_of_all_thresholds() -> None:
    logits, labels = draw()
    for number in (0, 1, 3):
        likely, true = logits[:, number].sigmoid().double().numpy(), labels[:, number].numpy() > 0.5
        best = max(metrics.f1_score(true, likely >= threshold) for threshold in np.unique(likely))
        assert metrics.f1_score(true, likely >= best_threshold(likely, true)) == pytest.approx(best)


def test_threshold_lies_between_the_probabilities_that_it_separates() -> None:
    assert best_threshold(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])) == pytest.approx(0.5)
    assert best_threshold(np.array([0.1, 0.2]), np.array([False, False])) == 0.5


def test_rare_label_gets_the_threshold_of_all_labels() -> None:
    logits, labels = draw()
    labels[:, 1] = 0
    labels[:9, 1] = 1
    probabilities = logits.sigmoid().double()
    found = fit_thresholds(probabilities, labels)
    common = best_threshold(probabilities.numpy().ravel(), labels.numpy().ravel() > 0.5)
    assert found[1] == found[2] == common
    assert found[0] != common


def test_temperature_minimizes_the_binary_cross_entropy() -> None:
    logits, labels = draw(400)
    temperature = fit_temperature(3 * logits, labels)
    losses = {
        factor: float(torch.nn.functional.binary_cross_entropy_with_logits(3 * logits / (factor * temperature), labels))
        for factor in (0.9, 1.0, 1.1)
    }
    assert min(losses, key=lambda factor: losses[factor]) == 1.0
    assert temperature > 2
    assert fit_temperature(10 * (2 * labels - 1), labels) == 1.0


def test_predicted_labels_reach_their_threshold_and_the_most_probable_comes_first() -> None:
    assert predicted_labels([0.3, 0.9, 0.5, 0.1], [0.3, 0.95, 0.4, 0.2]) == [2, 0]
