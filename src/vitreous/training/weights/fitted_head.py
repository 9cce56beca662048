"""Features of frozen weights, labels -> a linear head: logistic regression with a cross-validated penalty."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor, nn

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse penalties to choose from, for features with mean 0 and standard deviation 1."""
MOST_IMAGES = 50_000
"""A head is fitted to at most this many images; more change it little and take minutes."""
_NUM_FOLDS = 3
_MAX_ITERATIONS = 200


@dataclass(frozen=True)
class FittedHead:
    """A linear classifier of features.

    Attributes:
        weight: `[classes, features]`.
        bias: `[classes]`.
        strength: Inverse of the chosen penalty.
        accuracy: Cross-validated share of correctly classified training images; None if a class has a single image.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    accuracy: float | None

    def copy_into(self, head: nn.Module) -> None:
        """Overwrite the weights of a linear layer, in place."""
        head.load_state_dict({"weight": self.weight, "bias": self.bias})


def fit_head(features: Tensor, labels: Tensor, num_classes: int) -> FittedHead:
    """Fit a head to features.

    The penalty has the best cross-validated log loss. A class without images gets the smallest bias and no weights.

    Args:
        features: `[images, features]`, finite.
        labels: `[images]`, at least two different classes.
        num_classes: Number of rows of the head.
    """
    inputs, targets = features.cpu().double().numpy(), labels.cpu().numpy()
    mean, std = inputs.mean(axis=0), inputs.std(axis=0)
    std[std <= 1e-6 * np.abs(mean)] = 1.0  # a constant feature carries no information
    inputs = (inputs - mean) / std
    strength, accuracy = _choose_strength(inputs, targets)
    model = _classifier(strength)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        model.fit(inputs, targets)
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn stores one row, the difference between the classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / std
    bias = bias - weight @ mean
    full_weight, full_bias = np.zeros((num_classes, features.shape[1])), np.full(num_classes, bias.min())
    full_weight[model.classes_], full_bias[model.classes_] = weight, bias
    return FittedHead(torch.from_numpy(full_weight).float(), torch.from_numpy(full_bias).float(), strength, accuracy)


def _choose_strength(inputs: NDArray[np.float64], targets: NDArray[np.int64]) -> tuple[float, float | None]:
    """Return the strength with the best cross-validated log loss, and its accuracy."""
    _, targets, counts = np.unique(targets, return_inverse=True, return_counts=True)
    num_folds = min(_NUM_FOLDS, int(counts.min()))
    if num_folds < 2:
        return 1e-2, None
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=0)
    best, least_loss, accuracy = STRENGTHS[0], float("inf"), 0.0
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        for strength in STRENGTHS:
            found = cross_val_predict(_classifier(strength), inputs, targets, cv=folds, method="predict_proba")
            loss = log_loss(targets, found)
            if loss >= least_loss:
                break  # weaker penalties take longer and only overfit more
            best, least_loss, accuracy = strength, loss, float((found.argmax(axis=1) == targets).mean())
    return best, accuracy


def _classifier(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
