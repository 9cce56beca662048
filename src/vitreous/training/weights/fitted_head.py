"""Features of frozen weights, labels -> a linear head: the best of several classifiers by cross-validation."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.data.label_sets import label_pairs
from vitreous.data.survey.folds import family_folds
from vitreous.training.fit.evaluate import Score, fit_temperature, score

MOST_IMAGES = 50_000
"""A head is fitted to at most this many images; more change it little and take minutes."""
LEAST_PER_CLASS = 20
"""With a budget, the features are those of at least this many images per class on average, even if they take longer."""
_MOST_FOR_LOGISTIC = 1_000
"""With more images, the iterations of logistic regression take longer than the features, and gain nothing."""
_MOST_FOR_NEIGHBORS = 10_000
_MOST_LOGITS = 1 << 26
"""Logits that cross-validation and ridge regression may hold, in float64: 512 MB."""
_NUM_NEIGHBORS = 20
_BLOCK = 1_024
_NUM_FOLDS = 5

RIDGE = "ridge regression"


@dataclass(frozen=True)
class FittedHead:
    """A linear classifier of features.

    Attributes:
        weight: `[classes, features]`.
        bias: `[classes]`.
        method: Name of the classifier.
        cross_validated: Scores on the training images, each of which was left out of the fit that predicts it, with all
            of its family. Images of classes with one family are not scored; None if there are no two others.
        neighbors_accuracy: Share of the training images that have the class of most of their nearest neighbors in other
            families, in [0, 1]: a comparison that needs no fit. None for the same reason.
        left_out: Positions of the scored images, their classes, and their logits `[images, classes]` by fits without
            them; None for the same reason.
    """

    weight: Tensor
    bias: Tensor
    method: str
    cross_validated: Score | None = None
    neighbors_accuracy: float | None = None
    left_out: tuple[Tensor, Tensor, Tensor] | None = None

    def copy_into(self, head: nn.Module) -> None:
        """Overwrite the weights of a linear layer, in place."""
        head.load_state_dict({"weight": self.weight, "bias": self.bias})

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of images. The first ones are those of the fit, each predicted by a fit without it.

        Images that were not scored are predicted by the head itself, `[images, classes]`.
        """
        found = F.linear(features, self.weight, self.bias)
        if self.left_out is not None:
            images, classes, logits = self.left_out
            found[images[:, None], classes] = logits
        return found


def fit_head(features: Tensor, labels: Tensor, num_classes: int, families: NDArray[np.int64]) -> FittedHead:
    """Fit a head to features.

    The classifier with the lowest cross-validated loss is taken, after its logits were divided by a temperature that is
    fitted to the same predictions. A class without images gets the smallest bias and no weights.

    Args:
        features: Finite numbers, `[images, features]`.
        labels: Class indices, `[images]`, at least two different ones.
        num_classes: Number of rows of the head.
        families: A number for each image, equal for those of e.g. a patient, `[images]`; see `Survey.families`.
    """
    inputs, targets = features.cpu().double().numpy(), labels.cpu().numpy()
    mean, std = inputs.mean(axis=0), inputs.std(axis=0)
    std[std <= 1e-6 * np.abs(mean)] = 1.0  # a constant feature carries no information
    inputs = (inputs - mean) / std
    method, temperature, found, left_out = _choose(inputs, targets, families)
    weight, bias = _linear(_classifiers(targets)[method], inputs, targets, num_classes)
    weight = weight / std
    bias = bias - weight @ mean
    final_weight, final_bias = (torch.from_numpy(values / temperature).float() for values in (weight, bias))
    neighbors = None
    if found is not None:
        few = (values[:_MOST_FOR_NEIGHBORS] for values in (features.cpu(), labels.cpu(), torch.from_numpy(families)))
        neighbors = _neighbors_accuracy(*few)
    return FittedHead(final_weight, final_bias, method, found, neighbors, left_out)


def _classifiers(targets: NDArray[np.int64]) -> dict[str, Any]:
    """Return scikit-learn's classifiers by name, for features with mean 0 and standard deviation 1.

    The covariance of discriminant analysis is shrunk as Ledoit & Wolf 2004 derive; all of it, which leaves distances to
    the class means, if `shrinkage` is 1. On 3,068 photos of clothes, features of a ViT-S/14 at 126 px: discriminant
    analysis 81.5% in 0.2 s, logistic regression 80.8% in 15 s with the search for C, ridge regression 79.1%, nearest
    class mean 39.1%. With 2 images per class, ridge regression is the best.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression, RidgeClassifier

    num_images, num_classes = len(targets), len(np.unique(targets))
    found = {
        "nearest class mean": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1.0),
        "linear discriminant analysis": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        RIDGE: RidgeClassifier(alpha=100.0),
    }
    if num_images * num_classes > _MOST_LOGITS and num_images > num_classes:
        del found[RIDGE]
    strengths = (0.01, 0.1) if num_images <= _MOST_FOR_LOGISTIC else ()
    return found | {f"logistic regression, C={c:g}": LogisticRegression(C=c, max_iter=200) for c in strengths}


def _choose(
    inputs: NDArray[np.float64], targets: NDArray[np.int64], families: NDArray[np.int64]
) -> tuple[str, float, Score | None, tuple[Tensor, Tensor, Tensor] | None]:
    """Return the name of the best classifier, its temperature, its cross-validated score, and `left_out`."""
    counts = np.bincount(label_pairs(targets, families)[0])
    kept = np.flatnonzero(counts[targets] > 1)[: max(1, _MOST_LOGITS // np.count_nonzero(counts))]
    repeated, numbers = np.unique(targets[kept], return_inverse=True)
    folds = family_folds(numbers, families[kept], _NUM_FOLDS)
    if not folds:
        return RIDGE, 1.0, None, None
    smallest = min(len(train) for train, _ in folds)
    candidates, labels = _classifiers(targets), torch.from_numpy(numbers)
    usual = RIDGE if RIDGE in candidates else next(iter(candidates))
    best = usual, 1.0, Score(1, 0, float("inf")), torch.zeros(len(numbers), len(repeated))
    for name, classifier in candidates.items():
        if hasattr(classifier, "shrinkage") and smallest <= len(repeated):
            continue  # images of the same class show how much features vary, and there are none
        logits = torch.empty(len(numbers), len(repeated), dtype=torch.float64)
        for train, held_out in folds:
            weight, bias = _linear(classifier, inputs[kept][train], numbers[train], len(repeated))
            logits[held_out] = torch.from_numpy(inputs[kept][held_out] @ weight.T + bias)
        temperature = fit_temperature(logits, labels)
        found = score(logits / temperature, labels)
        if found.loss < best[2].loss:
            best = name, temperature, found, logits
    left_out = torch.from_numpy(kept), torch.from_numpy(repeated), (best[3] / best[1]).float()
    return (*best[:3], left_out)


def _linear(
    classifier: Any, inputs: NDArray[np.float64], targets: NDArray[np.int64], num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights and bias, with a row for each class, of a classifier fitted to features."""
    from sklearn.base import clone

    with warnings.catch_warnings(action="ignore"):  # of iterations and singular matrices: cross-validation judges them
        model = clone(classifier).fit(inputs, targets)
    weight, bias = model.coef_.reshape(-1, inputs.shape[1]), model.intercept_.reshape(-1)
    if len(model.classes_) == 2:  # scikit-learn stores one row, the difference between the classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    full_weight, full_bias = np.zeros((num_classes, inputs.shape[1])), np.full(num_classes, bias.min())
    full_weight[model.classes_], full_bias[model.classes_] = weight, bias
    return full_weight, full_bias


def _neighbors_accuracy(features: Tensor, labels: Tensor, families: Tensor) -> float:
    """Return the share of images with the class of their nearest neighbors, each image without its family.

    Source:
        The protocol of DINO: 20 neighbors by cosine, weighted by exp(cosine / 0.07) (Caron et al. 2021, 2104.14294).
        With few images, the number of neighbors is the mean number of images of a class.
    """
    units, num_classes, num_correct = F.normalize(features.float(), dim=1), int(labels.max()) + 1, 0
    num_neighbors = min(_NUM_NEIGHBORS, len(units) // len(labels.unique()))
    for start in range(0, len(units), _BLOCK):
        cosines = units[start : start + _BLOCK] @ units.T
        cosines[families[start : start + _BLOCK, None] == families] = -torch.inf
        nearest, indices = cosines.topk(num_neighbors)
        votes = torch.zeros(len(cosines), num_classes).scatter_add_(1, labels[indices], (nearest / 0.07).exp())
        num_correct += int((votes.argmax(dim=1) == labels[start : start + _BLOCK]).sum())
    return num_correct / len(units)
