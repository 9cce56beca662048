"""Labeled images, two models or ways to show them -> which images are right, and the difference with its interval."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vitreous.data.pixels.store import Store
from vitreous.data.workers import map_in_order
from vitreous.tensors import Probabilities, Targets
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
    return float(np.asarray(differences, dtype=np.float64).mean()), *paired_interval(differences)


def points(difference: Sequence[float]) -> str:
    """Return a difference of accuracies in words."""
    return "{:.1f} points (95% interval {:.1f} to {:.1f})".format(*(100 * part for part in difference))


def classify_all(
    predictor: Predictor, store: Store, true: Targets, show: Callable[[Tensor, int], Tensor] = lambda pixels, _: pixels
) -> NDArray[np.float64]:
    """Return 1 for images that get exactly their true class or labels, else 0, `[n]`.

    `show` makes of the pixels of an image, and of its number in the source, what the model gets instead.
    """

    def classify(batch: NDArray[np.int64]) -> Probabilities:
        pixels, indices = store.take(batch), store.source_indices[batch].tolist()
        return predictor.classify(torch.stack(map_in_order(lambda k: show(pixels[k], indices[k]), len(batch))))

    batches = np.array_split(np.arange(len(store)), range(BATCH_SIZE, len(store), BATCH_SIZE))
    found = torch.cat([classify(batch) for batch in batches])
    if predictor.thresholds is None:
        return (found.argmax(dim=1) == true).double().numpy()
    predicted = found.double() >= torch.tensor(predictor.thresholds, dtype=torch.float64)
    return (predicted == (true > 0.5)).all(dim=1).double().numpy()
