"""Labeled images, two models or ways to show them -> which images are right, and the difference with its interval."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vitreous.data.pixels.store import Store
from vitreous.data.workers import map_in_order
from vitreous.tensors import Targets
from vitreous.use.predict.predictor import BATCH_SIZE, Predictor


def paired_interval(differences: ArrayLike) -> tuple[float, float]:
    """Return the 95% interval of the mean of paired differences, one per image, each in [−1, 1].

    Source: Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", eq. 4. One image that only the first model classifies correctly and one that only the second does are
    added, so the interval does not collapse if the models differ on few images. Their formula covers the differences
    −1, 0 and 1; we also apply it to averages over seeds.
    """
    from scipy.stats import norm

    added = np.append(np.asarray(differences, dtype=np.float64), (1.0, -1.0))
    mean, half_width = float(added.mean()), float(norm.ppf(0.975)) * float(added.std()) / len(added) ** 0.5
    return max(-1.0, mean - half_width), min(1.0, mean + half_width)


def paired_difference(differences: ArrayLike) -> tuple[float, float, float]:
    """Return the mean of paired differences as in `paired_interval`, and both ends of that interval."""
    return float(np.mean(differences)), *paired_interval(differences)


def points(difference: Sequence[float]) -> str:
    """Return a difference of accuracies in words."""
    return "{:.1f} points (95% interval {:.1f} to {:.1f})".format(*(100 * part for part in difference))


def classify_all(
    predictor: Predictor, store: Store, true: Targets, show: Callable[[Tensor, int], Tensor] = lambda pixels, _: pixels
) -> NDArray[np.float64]:
    """Return 1 for images that get exactly their true class or labels, else 0, `[n]`.

    `show` makes of the pixels of an image, and of its number in the source, what the model gets instead.
    """
    right = []
    for batch in np.array_split(np.arange(len(store)), range(BATCH_SIZE, len(store), BATCH_SIZE)):
        pairs = list(zip(store.take(batch), store.source_indices[batch].tolist(), strict=True))
        found = predictor.classify(torch.stack(map_in_order(lambda k, pairs=pairs: show(*pairs[k]), len(pairs))))
        if predictor.thresholds is None:
            right.append(found.argmax(dim=1) == true[batch])
        else:
            predicted = found.double() >= torch.tensor(predictor.thresholds, dtype=torch.float64)
            right.append((predicted == (true[batch] > 0.5)).all(dim=1))
    return torch.cat(right).double().numpy()
