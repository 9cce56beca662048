"""Features, labels -> images that may be mislabeled, each with a more likely class.

The method is confident learning (Northcutt, Jiang & Chuang 2021, 1911.00068, eq. 1 and 2): the threshold of a class is
the mean out-of-sample probability that its own images get, and a label is doubtful if another class reaches its
threshold and the image's own class does not. We differ in six points: the probabilities come from trained models, or a
logistic regression with five-fold cross-validation; if several classes reach their thresholds, the most probable one
counts; to favor precision, an image is skipped if its own class keeps a probability above 0.1; no label is doubted if
the regression classifies less than 60% of the images correctly; and no label of a class is doubted if the regression
cannot recognize this class. Without the last rule, the images of a rare class are doubted because they are rare: a
regression that knows nothing else gives each of them to the frequent class, with a high probability. Accuracy does not
show that, so a class counts as recognized by the area under its ROC curve, which does not depend on class frequencies.
The sixth is the order of the doubtful labels (`label_margins`).

The features of a thumbnail are the orientations of its edges (Dalal & Triggs 2005, in 8x8 cells) and its colors. With
them, the regression classifies 90% of sign-digits, 89% of Fashion-MNIST and 71% of clothing-96px correctly. With 5% of
the labels changed, it finds 61% of the changed labels in sign-digits, 78% in digits and 63% in clothing-96px; of the
labels it reports there, 80%, 100% and 39% are changed ones (`benchmarks/doctor.py`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.near_duplicates import SIDE_PX, ColorThumbnails, GrayThumbnails
from vitreous.data.label_sets import label_pairs
from vitreous.data.survey.folds import Folds, family_folds
from vitreous.data.workers import Progress
from vitreous.seeding import derive, permutation

LEAST_ACCURACY = 0.6
"""Accuracy of the regression below which no label is doubted."""
LEAST_AUC = 0.8
"""Area under the ROC curve of a class below which none of its labels is doubted; 0.5 is guessing. In clothing-96px with
5% of the labels changed, the areas of the ten classes are 0.81 to 0.96."""
CONFUSED = 0.25  # share of the images of two classes taken for the other one, from which a merge is proposed
NUM_FOLDS = 5

_MOST_OWN = 0.1
"""Probability of an image's own class above which its label is not doubted."""
_LEAST_PROBABILITY = 1e-12
"""Smaller probabilities count as this one, so that they have a logarithm."""
_MOST_FITTED = 20_000
"""Maximum number of images that one regression is fitted on."""
_NUM_COMPONENTS = 128
_CELL_PX = 4
_NUM_ORIENTATIONS = 8
_CHUNK = 2_048
_EDGE_WEIGHT = 4.0


@dataclass(frozen=True, eq=False)
class LabelDoubts:
    """Result of the cross-validation.

    Attributes:
        accuracy: Share of the images that the regression assigns to their own class, over all classes that are large
            enough for it; NaN if there are fewer than two.
        largest_share: Share of the largest of these classes: the accuracy of always guessing it.
        num_judged: Number of images in classes that are large enough and that the regression recognizes.
        positions: Rows of `features` whose label is doubtful, most doubtful first, `[k]`.
        likely_classes: The more likely class of each, `[k]`.
        probabilities: Probability of that class, `[k]`.
        confused: Pairs of classes, each of which is taken for the other for at least `CONFUSED` of its images.
    """

    accuracy: float
    largest_share: float
    num_judged: int
    positions: NDArray[np.int64]
    likely_classes: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    confused: tuple[tuple[int, int], ...] = ()

    @property
    def is_reliable(self) -> bool:
        """True if the regression is accurate enough to doubt labels."""
        return self.accuracy >= LEAST_ACCURACY


def find_doubtful_labels(
    features: NDArray[Any],
    labels: NDArray[np.int64],
    families: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
    are_probabilities: bool = False,
) -> LabelDoubts:
    """Find images that may be mislabeled.

    Args:
        features: `[n, any]`, all on one scale, since distances between rows are compared.
        labels: Class indices, `[n]`. Classes with fewer than `NUM_FOLDS` families are not judged.
        families: A number for each image, `[n]`, equal for images that are never on both sides of the cross-validation,
            such as those of a patient, who would be recognized instead of the class. None: each image is on its own.
        progress: Called with (images judged, images to judge).
        are_probabilities: The features are probabilities `[n, classes]` by models that were not trained on the images.

    Returns:
        The doubtful labels. There are none if fewer than two classes can be judged or the regression is not reliable.
    """
    together = np.arange(len(labels)) if families is None else families
    judged = np.flatnonzero(np.bincount(label_pairs(labels, together)[0])[labels] >= NUM_FOLDS)
    classes = np.unique(labels[judged])
    nothing, own = np.zeros(0, dtype=np.int64), np.searchsorted(classes, labels[judged])
    folds = [] if are_probabilities else family_folds(own, together[judged], NUM_FOLDS)
    if len(classes) < 2 or not (are_probabilities or folds):
        return LabelDoubts(float("nan"), float("nan"), 0, nothing, nothing, np.zeros(0))
    if are_probabilities:
        probabilities = features[judged][:, classes]
    else:
        probabilities = _cross_validated(_reduced(features[judged]), own, folds, progress)
    rows = np.arange(len(own))
    accuracy = float((probabilities.argmax(axis=1) == own).mean())
    threshold = _thresholds(probabilities, own)
    others = np.where(probabilities >= threshold, probabilities, 0.0)
    others[rows, own] = 0.0
    likely = others.argmax(axis=1)
    doubtful = (others[rows, likely] > 0) & (probabilities[rows, own] <= np.minimum(threshold[own], _MOST_OWN))
    recognized = _areas(probabilities, own)[own] >= LEAST_AUC
    found = np.flatnonzero(doubtful & recognized) if accuracy >= LEAST_ACCURACY else nothing
    found = found[np.argsort(-label_margins(probabilities, own)[found], kind="stable")]
    taken = np.eye(len(classes))[probabilities.argmax(axis=1)]
    taken = np.array([taken[own == label].mean(axis=0) for label in range(len(classes))])
    both = np.argwhere(np.triu(np.minimum(taken, taken.T), 1) >= CONFUSED) if are_probabilities else ()
    return LabelDoubts(
        accuracy=accuracy,
        largest_share=float(np.bincount(own).max() / len(own)),
        num_judged=int(recognized.sum()),
        positions=judged[found],
        likely_classes=classes[likely[found]],
        probabilities=probabilities[found, likely[found]],
        confused=tuple((int(classes[a]), int(classes[b])) for a, b in both),
    )


def label_margins(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how much more likely another class is than the label, `[n]`: the log of a ratio; every class is a label.

    Both probabilities are divided by the thresholds of their classes. Otherwise, correct images of a class with low
    probabilities would come first. Northcutt et al. subtract the thresholds instead, which ranks a label with a
    probability of 0.001 hardly before one of 0.1, and finds fewer wrong labels (`benchmarks/label_errors.py`).
    """
    ratios = np.maximum(probabilities, _LEAST_PROBABILITY) / _thresholds(probabilities, labels)
    rows, logs = np.arange(len(labels)), np.log(ratios)
    own = logs[rows, labels]
    logs[rows, labels] = -np.inf
    return logs.max(axis=1) - own


def _thresholds(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean probability that the images of each class get for it, `[classes]`."""
    return np.array([column[labels == label].mean() for label, column in enumerate(probabilities.T)])


def thumbnail_features(gray: GrayThumbnails, color: ColorThumbnails) -> NDArray[np.float32]:
    """Return features for `find_doubtful_labels`, `[n, 512 + side * side * 3]`: edges of thumbnails, then colors."""
    edges = [_edges(gray[start : start + _CHUNK]) for start in range(0, len(gray), _CHUNK)]
    colors = color.reshape(len(color), -1).astype(np.float32) / 255.0 - 0.5
    return np.concatenate([_EDGE_WEIGHT * np.concatenate(edges), colors], axis=1)


def _edges(gray: GrayThumbnails) -> NDArray[np.float32]:
    """Return histograms of oriented gradients, `[n, 512]`; each pixel counts for the two nearest orientations."""
    pixels = gray.astype(np.float32)
    down, right = np.zeros_like(pixels), np.zeros_like(pixels)
    down[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    right[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]
    strength = np.hypot(down, right)
    angle = (np.arctan2(down, right) / (2 * np.pi)) % 1.0 * _NUM_ORIENTATIONS
    cells = SIDE_PX // _CELL_PX
    histogram = np.zeros((len(pixels), cells, cells, _NUM_ORIENTATIONS), dtype=np.float32)
    for orientation in range(_NUM_ORIENTATIONS):
        distance = np.abs((angle - orientation + _NUM_ORIENTATIONS / 2) % _NUM_ORIENTATIONS - _NUM_ORIENTATIONS / 2)
        share = strength * (1.0 - distance).clip(min=0.0)
        histogram[..., orientation] = share.reshape(-1, cells, _CELL_PX, cells, _CELL_PX).sum(axis=(2, 4))
    vectors = np.sqrt(histogram).reshape(len(pixels), -1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-6)


def _reduced(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return principal components, scaled so that one regularization strength suits all kinds of features."""
    from sklearn.decomposition import PCA

    sample = features[permutation(derive(0, "components"), len(features))[:_MOST_FITTED]]
    components = PCA(min(_NUM_COMPONENTS, *sample.shape), random_state=0).fit(sample)
    reduced = components.transform(features)
    return (reduced / max(float(reduced[:, :8].std(axis=0).mean()), 1e-6)).astype(np.float32)


def _areas(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the area under the ROC curve of each class against all others, `[classes]`."""
    from sklearn.metrics import roc_auc_score

    columns = enumerate(probabilities.T)
    return np.array([roc_auc_score(labels == label, column) for label, column in columns])


def _cross_validated(
    features: NDArray[np.float32], labels: NDArray[np.int64], folds: Folds, progress: Progress | None
) -> NDArray[np.float64]:
    """Return class probabilities from a regression that was not fitted on the image itself, `[n, classes]`."""
    from sklearn.linear_model import LogisticRegression

    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    for fold, (rest, held_out) in enumerate(folds):
        fitted = rest[permutation(derive(0, "fold", fold), len(rest))[:_MOST_FITTED]]
        regression = LogisticRegression(C=0.3, max_iter=500, tol=1e-3).fit(features[fitted], labels[fitted])
        probabilities[np.ix_(held_out, regression.classes_)] = regression.predict_proba(features[held_out])
        if progress is not None:
            progress(len(labels) * (fold + 1) // len(folds), len(labels))
    return probabilities
