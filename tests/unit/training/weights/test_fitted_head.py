"""Heads fitted to features, compared with scikit-learn's own predictions."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import LeaveOneOut, StratifiedKFold, cross_val_predict, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vitreous.training.fit.evaluate import fit_temperature
from vitreous.training.weights.fitted_head import FittedHead, _classifiers, fit_head


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test features and labels. Some pixels are constant in these images."""
    inputs, labels = load_digits(return_X_y=True)
    return tuple(train_test_split(inputs, labels, train_size=400, random_state=0))


def fit(inputs: np.ndarray, labels: np.ndarray, num_classes: int, families: np.ndarray | None = None) -> FittedHead:
    families = np.arange(len(labels)) if families is None else families
    return fit_head(torch.from_numpy(inputs).float(), torch.from_numpy(labels), num_classes, families)


def logits(head: FittedHead, inputs: np.ndarray) -> Tensor:
    return torch.from_numpy(inputs).float() @ head.weight.T + head.bias


@pytest.mark.parametrize("num_classes", [2, 10])
def test_head_gives_the_decisions_of_scikit_learn(digits: tuple[np.ndarray, ...], num_classes: int) -> None:
    train, test, labels, truth = digits
    labels, truth = labels % num_classes, truth % num_classes
    head = fit(train, labels, num_classes)
    classifier = _classifiers(labels)[head.method]
    reference = make_pipeline(StandardScaler(), clone(classifier)).fit(train, labels)
    found = logits(head, test)
    assert found.shape == (len(test), num_classes)
    expected = torch.from_numpy(reference.decision_function(test)).float()
    margins = found - found.mean(dim=1, keepdim=True) if num_classes > 2 else found[:, 1] - found[:, 0]
    wanted = expected - expected.mean(dim=1, keepdim=True) if num_classes > 2 else expected
    temperature = float((wanted * margins).sum() / (margins * margins).sum())
    torch.testing.assert_close(temperature * margins, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))
    assert head.cross_validated is not None
    assert head.cross_validated.accuracy == pytest.approx((found.argmax(dim=1).numpy() == truth).mean(), abs=0.05)


def test_memory_for_logits_is_bounded(digits: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, labels, truth = digits
    monkeypatch.setattr("vitreous.training.weights.fitted_head._MOST_LOGITS", 10 * 150)
    head = fit(train, labels, 10)
    assert head.cross_validated is not None
    assert head.cross_validated.num_images == 150
    assert "ridge" not in head.method
    assert (logits(head, test).argmax(dim=1).numpy() == truth).mean() > 0.9


@pytest.mark.parametrize("num_alone", [0, 1])
def test_each_image_is_predicted_by_a_fit_without_it(digits: tuple[np.ndarray, ...], num_alone: int) -> None:
    train, test, labels, _ = digits
    labels = labels + 1  # class 0 has no image, and perhaps class 11 has one
    labels[:num_alone] = 11
    head = fit(train, labels, 12)
    classifier, folds = clone(_classifiers(labels)[head.method]), StratifiedKFold(5, shuffle=True, random_state=0)
    kept, features = slice(num_alone, None), StandardScaler().fit_transform(train)
    expected = torch.from_numpy(
        cross_val_predict(classifier, features[kept], labels[kept], cv=folds, method="decision_function")
    )
    expected = (expected / fit_temperature(expected, torch.from_numpy(labels[kept] - 1))).float()
    found = head.logits(torch.from_numpy(np.concatenate([train, test])).float())
    torch.testing.assert_close(found[kept][: len(expected), 1:11], expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found[kept][: len(expected), 1:11], logits(head, train[kept])[:, 1:11], atol=0.1)
    for own, images in ((found[:num_alone], train[:num_alone]), (found[len(train) :], test)):
        torch.testing.assert_close(own, logits(head, images), rtol=1e-4, atol=1e-4)


def test_probabilities_are_calibrated(digits: tuple[np.ndarray, ...]) -> None:
    train, test, labels, truth = digits
    head = fit(train, labels, 10)
    assert fit_temperature(logits(head, test), torch.from_numpy(truth)) == pytest.approx(1.0, abs=0.3)


def test_the_classifier_with_the_lowest_cross_validated_loss_is_taken() -> None:
    """Classes that only differ in their mean, with the same spread in every direction, are those of nearest means."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    inputs = generator.normal(size=(3, 60))[labels] + 2.0 * generator.normal(size=(120, 60))
    assert fit(inputs, labels, 3).method == "nearest class mean"
    skewed = inputs @ np.diag(np.geomspace(1, 100, 60)) @ generator.normal(size=(60, 60))
    assert fit(skewed, labels, 3).method != "nearest class mean"


def test_nearest_neighbors_agree_with_scikit_learn(digits: tuple[np.ndarray, ...]) -> None:
    train, _, labels, _ = digits
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    found = cross_val_predict(reference, train, labels, cv=LeaveOneOut())
    assert fit(train, labels, 10).neighbors_accuracy == pytest.approx((found == labels).mean(), abs=0.003)


def test_few_images_are_compared_with_as_few_neighbors() -> None:
    """If all other images voted, those of the larger classes would outvote the two of the smallest."""
    labels = np.repeat(np.arange(3), [3, 6, 6])
    inputs = np.eye(3)[labels] + 2 + 0.05 * np.random.default_rng(0).normal(size=(15, 3))
    assert fit(inputs, labels, 3).neighbors_accuracy == 1.0


def test_class_without_images_is_never_predicted(digits: tuple[np.ndarray, ...]) -> None:
    train, test, labels, _ = digits
    kept = labels != 3
    head = fit(train[kept], labels[kept], 11)
    predicted = set(logits(head, test).argmax(dim=1).tolist())
    assert predicted == set(range(10)) - {3}


def test_class_with_one_image_is_learned_but_not_scored(digits: tuple[np.ndarray, ...]) -> None:
    train, _, labels, _ = digits
    kept = (labels != 3) | (np.arange(len(labels)) == np.flatnonzero(labels == 3)[0])
    head = fit(train[kept], labels[kept], 10)
    assert head.cross_validated is not None
    assert head.cross_validated.num_images == kept.sum() - 1
    assert (logits(head, train[kept]).argmax(dim=1).numpy() == labels[kept]).mean() > 0.9


@pytest.mark.parametrize("num_each", [1, 2, 3, 5])
def test_few_images_of_each_class_are_enough(digits: tuple[np.ndarray, ...], num_each: int) -> None:
    train, test, labels, truth = digits
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:num_each] for digit in range(10)])
    head = fit(train[chosen], labels[chosen], 10)
    assert (head.cross_validated is None) == (num_each == 1)
    least = {1: 0.4, 2: 0.5, 3: 0.6, 5: 0.7}[num_each]
    assert (logits(head, test).argmax(dim=1).numpy() == truth).mean() > least


def test_scale_of_a_feature_does_not_matter(digits: tuple[np.ndarray, ...]) -> None:
    train, test, labels, _ = digits
    scale = np.geomspace(1e-3, 1e3, 64)
    head, scaled = fit(train, labels, 10), fit(train * scale, labels, 10)
    torch.testing.assert_close(logits(scaled, test * scale), logits(head, test), atol=2e-2, rtol=0)


def patients(num_each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of 40 patients, each with a class by chance: they show who it is and nothing of the class."""
    generator = np.random.default_rng(0)
    families = np.repeat(np.arange(40), num_each)
    inputs = generator.normal(size=(40, 30))[families] + 0.01 * generator.normal(size=(len(families), 30))
    return inputs, generator.integers(0, 2, 40)[families], families


def test_a_patient_is_not_recognized_instead_of_the_class() -> None:
    inputs, labels, families = patients(6)
    apart, together = fit(inputs, labels, 2), fit(inputs, labels, 2, families)
    assert apart.cross_validated is not None
    assert together.cross_validated is not None
    assert (apart.cross_validated.accuracy, apart.neighbors_accuracy) > (0.9, 0.9)
    assert together.cross_validated.accuracy < 0.7
    assert together.neighbors_accuracy is not None
    assert together.neighbors_accuracy < 0.7


def test_class_of_one_patient_is_learned_but_not_scored(digits: tuple[np.ndarray, ...]) -> None:
    train, _, labels, _ = digits
    families = np.where(labels == 3, len(labels), np.arange(len(labels)))
    head = fit(train, labels, 10, families)
    assert head.cross_validated is not None
    assert head.cross_validated.num_images == (labels != 3).sum()
    assert (logits(head, train).argmax(dim=1).numpy() == labels).mean() > 0.9


def test_families_of_mixed_classes_that_leave_one_class_to_fit_to_are_not_scored() -> None:
    families, labels = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0])
    inputs = np.random.default_rng(0).normal(size=(5, 3))
    assert fit(inputs, labels, 2, families).cross_validated is not None
    assert fit(inputs[1:], labels[1:], 2, families[1:] // 2).cross_validated is None
