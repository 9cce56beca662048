"""Features, labels -> images whose label is in doubt, each with the class that it looks like.

Confident learning (Northcutt, Jiang & Chuang 2021, 1911.00068, eq. 1 and 2): a class's threshold is the mean
probability that its own images get, out of sample; an image is in doubt where another class passes its threshold and
its own does not. We differ: probabilities are those of a logistic regression, cross-validated in five folds; where
several classes pass, the most probable counts; one whose own class keeps a probability over 0.1 is left out, for
precision; and where the regression is right on less than 60 % of the images it has no say.

Features of thumbnails are the orientations of their edges (Dalal & Triggs 2005, in 8 x 8 cells) and their colours. The
regression is right on 90 % of sign-digits, 89 % of Fashion-MNIST and 71 % of clothing-96px. Of 5 % planted wrong labels
it finds 61 %, 78 % and 63 % in sign-digits, digits and clothing-96px; 80 %, 100 % and 39 % of what it doubts is planted
(`benchmarks/doctor.py`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.near_duplicates import SIDE_PX, Coloured, Gray
from vitreous.data.workers import Progress
from vitreous.seeding import derive, permutation

LEAST_ACCURACY = 0.6
NUM_FOLDS = 5

_MOST_OWN = 0.1
_MOST_FITTED = 20_000
_DIMENSIONS = 128
_CELL_PX = 4
_ORIENTATIONS = 8
_AT_ONCE = 2_048
_EDGES_WEIGH = 4.0


@dataclass(frozen=True, eq=False)
class Doubts:
    """What cross-validation says of the labels.

    Attributes:
        accuracy: Share of the judged images that get their own class; NaN where none could be judged.
        num_judged: Images of classes that have enough of them to be judged.
        positions: Images in doubt, most doubtful first, `[k]`.
        looks_like: The class each of them resembles, `[k]`.
        probability: Of that class, `[k]`.
    """

    accuracy: float
    num_judged: int
    positions: NDArray[np.int64]
    looks_like: NDArray[np.int64]
    probability: NDArray[np.float64]

    @property
    def can_tell(self) -> bool:
        """Whether the features tell the classes apart well enough to have a say."""
        return self.accuracy >= LEAST_ACCURACY


def find_doubts(features: NDArray[np.float32], labels: NDArray[np.int64], progress: Progress | None = None) -> Doubts:
    """Which labels are in doubt.

    Args:
        features: `[n, any]`; distances between them should mean something, so do not mix scales.
        labels: Class indices, `[n]`. Classes with fewer than `NUM_FOLDS` images are not judged.
        progress: Called with how many images of how many are judged.

    Returns:
        The doubts; none where fewer than two classes can be judged or the features tell too little.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    judged = np.flatnonzero(counts[inverse] >= NUM_FOLDS)
    classes = np.unique(labels[judged])
    nothing = np.zeros(0, dtype=np.int64)
    if len(classes) < 2:
        return Doubts(float("nan"), 0, nothing, nothing, np.zeros(0))
    own = np.searchsorted(classes, labels[judged])
    probabilities = _cross_validated(_reduced(features[judged]), own, progress)
    rows = np.arange(len(own))
    accuracy = float((probabilities.argmax(axis=1) == own).mean())
    threshold = np.array([probabilities[own == label, label].mean() for label in range(len(classes))])
    others = np.where(probabilities >= threshold, probabilities, 0.0)
    others[rows, own] = 0.0
    like = others.argmax(axis=1)
    doubted = (others[rows, like] > 0) & (probabilities[rows, own] <= np.minimum(threshold[own], _MOST_OWN))
    found = np.flatnonzero(doubted) if accuracy >= LEAST_ACCURACY else nothing
    margin = probabilities[found, like[found]] - probabilities[found, own[found]]
    found = found[np.argsort(-margin, kind="stable")]
    return Doubts(accuracy, len(judged), judged[found], classes[like[found]], probabilities[found, like[found]])


def describe_for_labels(gray: Gray, colour: Coloured) -> NDArray[np.float32]:
    """Edges and colours of thumbnails.

    Args:
        gray: `[n, SIDE_PX, SIDE_PX]`, n above 0.
        colour: `[n, side, side, 3]`.

    Returns:
        `[n, 512 + colours]`.
    """
    parts = [_edges(gray[start : start + _AT_ONCE]) for start in range(0, len(gray), _AT_ONCE)]
    tints = colour.reshape(len(colour), -1).astype(np.float32) / 255.0 - 0.5
    return np.concatenate([_EDGES_WEIGH * np.concatenate(parts), tints], axis=1)


def _edges(gray: Gray) -> NDArray[np.float32]:
    """Histograms of oriented gradients: each pixel's strength goes to the two nearest orientations of its cell."""
    pixels = gray.astype(np.float32)
    down, right = np.zeros_like(pixels), np.zeros_like(pixels)
    down[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    right[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]
    strength = np.hypot(down, right)
    turn = (np.arctan2(down, right) / (2 * np.pi)) % 1.0 * _ORIENTATIONS
    cells = SIDE_PX // _CELL_PX
    counted = np.zeros((len(pixels), cells, cells, _ORIENTATIONS), dtype=np.float32)
    for orientation in range(_ORIENTATIONS):
        apart = np.abs((turn - orientation + _ORIENTATIONS / 2) % _ORIENTATIONS - _ORIENTATIONS / 2)
        share = strength * (1.0 - apart).clip(min=0.0)
        counted[..., orientation] = share.reshape(-1, cells, _CELL_PX, cells, _CELL_PX).sum(axis=(2, 4))
    vectors = np.sqrt(counted).reshape(len(pixels), -1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-6)


def _reduced(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Principal components, scaled so that one regularisation suits all features."""
    from sklearn.decomposition import PCA

    sample = features[permutation(derive(0, "components"), len(features))[:_MOST_FITTED]]
    components = PCA(min(_DIMENSIONS, *sample.shape), random_state=0).fit(sample)
    reduced = components.transform(features)
    return (reduced / max(float(reduced[:, :8].std(axis=0).mean()), 1e-6)).astype(np.float32)


def _cross_validated(
    features: NDArray[np.float32], labels: NDArray[np.int64], progress: Progress | None
) -> NDArray[np.float64]:
    """Each image's probabilities by a regression that did not see it, `[n, classes]`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=0)
    for number, (known, held_out) in enumerate(folds.split(features, labels)):
        fitted = known[permutation(derive(0, "fold", number), len(known))[:_MOST_FITTED]]
        regression = LogisticRegression(C=0.3, max_iter=500, tol=1e-3).fit(features[fitted], labels[fitted])
        probabilities[np.ix_(held_out, regression.classes_)] = regression.predict_proba(features[held_out])
        if progress is not None:
            progress(len(labels) * (number + 1) // NUM_FOLDS, len(labels))
    return probabilities
