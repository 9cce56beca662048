"""Model, labeled images -> logits and their score: accuracy with its uncertainty, loss, temperature."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vitreous.data.loader import Batch, EvalLoader
from vitreous.tensors import Labels, Logits, Loss, Targets, Truths
from vitreous.training.fit.class_counts import ClassCounts
from vitreous.training.machine.device import autocast
from vitreous.training.machine.distributed import Group

_MOST_DOUBLES = 1 << 25
"""Logits that the loss converts at once; other sets than very large ones have fewer."""
_MOST_FITTED = 1 << 20
"""Logits to which the temperature of a comparison is fitted, about 30 times."""
_NUM_PARTS = 5
"""Parts of images, each of which gets the temperature of all others."""


@dataclass(frozen=True)
class Score:
    """Accuracy and loss of a model on a set of images.

    `num_correct` counts the images whose largest logit is the true class. The loss is the mean cross-entropy, without
    label smoothing. `counts` has the images by class; None if they were not counted. `calibrated_loss` is the loss at
    the temperature that suits these images; None if none was fitted.
    """

    num_images: int
    num_correct: int
    loss: float
    counts: ClassCounts | None = None
    calibrated_loss: float | None = None

    @property
    def accuracy(self) -> float:
        """Share of correct images, in [0, 1]."""
        return self.num_correct / self.num_images

    @property
    def comparable_loss(self) -> float:
        """The loss by which models are compared: the calibrated one, if there is one."""
        return self.loss if self.calibrated_loss is None else self.calibrated_loss

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the accuracy, each end in [0, 1].

        Source:
            Wilson 1927, whose interval is also valid near 0 and 1 and for few images.
        """
        from scipy.stats import binomtest

        test = binomtest(self.num_correct, self.num_images)
        interval = test.proportion_ci(confidence_level=0.95, method="wilson")
        return float(interval.low), float(interval.high)

    def as_dict(self) -> dict[str, Any]:
        """Return the score as plain values, for records and model files."""
        return {
            "accuracy": self.accuracy,
            "interval_95": list(self.interval),
            "loss": self.loss,
            "num_images": self.num_images,
            "num_correct": self.num_correct,
            **({} if self.calibrated_loss is None else {"calibrated_loss": self.calibrated_loss}),
            **({} if self.counts is None else self.counts.as_dict()),
        }


@torch.inference_mode()
def compute_logits(model: nn.Module, batches: Iterable[Batch], precision: str) -> tuple[Logits, Targets]:
    """Return logits (float32, on the CPU) and labels of all batches, in order."""
    model.eval()
    logits, labels = [], []
    for batch in batches:
        with autocast(batch.images.device, precision):
            logits.append(model(batch.images).float().cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(logits), torch.cat(labels)


def gather_logits(model: nn.Module, loader: EvalLoader, precision: str, group: Group) -> tuple[Logits, Targets]:
    """Return logits and labels of all images in the order of the store; each process computes a share of them."""
    shares = group.gather((list(loader.positions()), *compute_logits(model, loader, precision)))
    order = torch.from_numpy(np.argsort(np.concatenate([part for positions, _, _ in shares for part in positions])))
    return torch.cat([logits for _, logits, _ in shares])[order], torch.cat([labels for _, _, labels in shares])[order]


def score(logits: Logits, labels: Targets, classes: Sequence[str] | None = None) -> Score:
    """Return accuracy and loss of logits; with class names and one label per image, also the images by class."""
    right, counts = are_right(logits, labels), None
    if classes is not None and not labels.is_floating_point():
        counts = ClassCounts.of(classes, labels, logits.argmax(dim=1))
    size = max(1, _MOST_DOUBLES // logits.shape[1])  # with 20,000 classes, all logits as doubles would fill the memory
    parts = zip(logits.split(size), labels.split(size), strict=True)
    loss = sum(float(mean_loss(some.double(), true)) * (len(true) / len(labels)) for some, true in parts)
    return Score(num_images=len(labels), num_correct=int(right.sum()), loss=loss, counts=counts)


def are_right(logits: Logits, labels: Targets) -> Truths:
    """Return which images get the right class; with several labels per image, which get all of them right."""
    if labels.is_floating_point():
        return ((logits > 0) == (labels > 0.5)).all(dim=1)
    return logits.argmax(dim=1) == labels


def mean_loss(logits: Logits, labels: Targets) -> Loss:
    """Return the cross-entropy; with several labels per image, the binary cross-entropy, averaged over the classes."""
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def fit_temperature(logits: Logits, labels: Targets) -> float:
    """Return the temperature: softmax(logits / temperature) gives calibrated probabilities on these images.

    With several labels per image, sigmoid replaces softmax. The temperature minimizes the cross-entropy over
    [1/20, 20]. Fit it on validation images. If all of them are correct, there is no minimum: the loss keeps falling as
    the temperature falls. Then the temperature is 1.

    Source:
        Guo et al. 2017, section 4.2 (1706.04599). They do not treat the case that all images are correct.
    """
    from scipy.optimize import minimize_scalar

    if bool(are_right(logits, labels).all()):
        return 1.0
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(mean_loss(logits / torch.tensor(log_temperature).double().exp(), labels))

    bound = float(torch.tensor(20.0).log())
    minimum = minimize_scalar(loss, bounds=(-bound, bound), method="bounded")
    return float(torch.tensor(float(minimum.x)).exp())


def calibrated_loss(logits: Logits, labels: Targets) -> float:
    """Return the lowest loss at any temperature.

    It compares models of different confidence: label smoothing and a fitted head change the loss of models that predict
    the same classes, and the temperature of the saved model removes that difference. With many images, the temperature
    is fitted to some of them, evenly spaced because data sets are often sorted by class. The loss is 0 if all images
    are correct, which it approaches as the temperature falls.
    """
    if bool(are_right(logits, labels).all()):
        return 0.0
    stride = -(-logits.numel() // _MOST_FITTED)
    return score(logits / fit_temperature(logits[::stride], labels[::stride]), labels).loss


def cross_fitted_temperatures(logits: Logits, labels: Labels) -> torch.Tensor:
    """Return a temperature for each image, `[n, 1]`, fitted on images that do not include it.

    Images are dealt out to five parts in turn, and each part gets the temperature of all others. Thus the
    calibration of these images shows that of new images, although no image was held out for the fit.
    """
    part = torch.arange(len(labels)) % _NUM_PARTS
    fitted = [fit_temperature(logits[part != i], labels[part != i]) for i in range(_NUM_PARTS)]
    return torch.tensor(fitted)[part].unsqueeze(1)
