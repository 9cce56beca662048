"""Heads fitted to features, compared with scikit-learn's own predictions."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vitreous.training.weights.fitted_head import STRENGTHS, FittedHead, fit_head


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test features and labels. Some pixels are constant in these images."""
    inputs, labels = load_digits(return_X_y=True)
    return tuple(train_test_split(inputs, labels, train_size=400, random_state=0))


def fit(inputs: np.ndarray, labels: np.ndarray, num_classes: int) -> FittedHead:
    return fit_head(torch.from_numpy(inputs).float(), torch.from_numpy(labels), num_classes)


def logits(head: FittedHead, inputs: np.ndarray) -> Tensor:
    return torch.from_numpy(inputs).float() @ head.weight.T + head.bias


def test_head_gives_the_probabilities_of_scikit_learn(digits: tuple[np.ndarray, ...]) -> None:
    train, test, labels, truth = digits
    head = fit(train, labels, 10)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=head.strength, max_iter=200)).fit(train, labels)
    found = logits(head, test).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(test), atol=1e-4)
    assert head.accuracy == pytest.approx((found.argmax(axis=1) == truth).mean(), abs=0.04)
    assert head.strength in STRENGTHS[1:-1]


def test_two_classes_have_a_row_each(digits: tuple[np.ndarray, ...]) -> None:
    train, test, labels, _ = digits
    head = fit(train, (labels > 4).astype(np.int64), 2)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=head.strength, max_iter=200)).fit(
        train, labels > 4
    )
    np.testing.assert_allclose(logits(head, test).softmax(dim=1), reference.predict_proba(test), atol=1e-4)


def test_class_without_images_is_never_predicted(digits: tuple[np.ndarray, ...]) -> None:
    train, test, labels, _ = digits
    kept = labels != 3
    head = fit(train[kept], labels[kept], 11)
    predicted = set(logits(head, test).argmax(dim=1).tolist())
    assert predicted == set(range(10)) - {3}


def test_class_with_one_image_leaves_the_accuracy_open(digits: tuple[np.ndarray, ...]) -> None:
    train, _, labels, _ = digits
    kept = (labels != 3) | (np.arange(len(labels)) == np.flatnonzero(labels == 3)[0])
    head = fit(train[kept], labels[kept], 10)
    assert head.accuracy is None
    assert (logits(head, train[kept]).argmax(dim=1).numpy() == labels[kept]).mean() > 0.9


def test_scale_of_a_feature_does_not_matter(digits: tuple[np.ndarray, ...]) -> None:
    train, test, labels, _ = digits
    scale = np.geomspace(1e-3, 1e3, 64)
    head, scaled = fit(train, labels, 10), fit(train * scale, labels, 10)
    torch.testing.assert_close(logits(scaled, test * scale), logits(head, test), atol=2e-2, rtol=0)
