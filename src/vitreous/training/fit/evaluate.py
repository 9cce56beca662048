"""Model, labelled images -> logits, and what they are worth: accuracy with its uncertainty, loss, temperature."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vitreous.data.loader import Batch, EvalLoader
from vitreous.tensors import Labels, Logits
from vitreous.training.machine.device import autocast
from vitreous.training.machine.distributed import Group


@dataclass(frozen=True)
class Score:
    """How well a model does on a set of images.

    Attributes:
        num_images: Size of the set.
        num_correct: Images whose largest logit was the right one.
        loss: Mean cross-entropy, without label smoothing.
    """

    num_images: int
    num_correct: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share that is right, in [0, 1]."""
        return self.num_correct / self.num_images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy: what other images of the same kind could have given.

        Source: Wilson 1927, which also holds near 0 and 1 and for few images.
        """
        from scipy.stats import binomtest

        found = binomtest(self.num_correct, self.num_images).proportion_ci(confidence_level=0.95, method="wilson")
        return float(found.low), float(found.high)

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """For records and model files."""
        return {
            "accuracy": self.accuracy,
            "interval_95": list(self.interval),
            "loss": self.loss,
            "num_images": self.num_images,
            "num_correct": self.num_correct,
        }


@torch.inference_mode()
def compute_logits(model: nn.Module, batches: Iterable[Batch], precision: str) -> tuple[Logits, Labels]:
    """Logits (float32, on the CPU) and labels of all batches, in their order."""
    model.eval()
    logits, labels = [], []
    for batch in batches:
        with autocast(batch.images.device, precision):
            logits.append(model(batch.images).float().cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(logits), torch.cat(labels)


def gather_logits(model: nn.Module, loader: EvalLoader, precision: str, group: Group) -> tuple[Logits, Labels]:
    """As `compute_logits`, of a loader that gives each process its share: each image once, in the store's order."""
    found = group.gather((list(loader.positions()), *compute_logits(model, loader, precision)))
    order = torch.from_numpy(np.argsort(np.concatenate([part for positions, _, _ in found for part in positions])))
    return torch.cat([logits for _, logits, _ in found])[order], torch.cat([labels for _, _, labels in found])[order]


def score(logits: Logits, labels: Labels) -> Score:
    """Accuracy and loss of given logits."""
    num_correct = int((logits.argmax(dim=1) == labels).sum())
    return Score(len(labels), num_correct, float(F.cross_entropy(logits.double(), labels)))


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The number by which to divide logits so that their softmax is calibrated on these images.

    Found within [1/20, 20] by minimising the cross-entropy over its logarithm. Fit it on validation images. Where all
    of them are right, the less the better would hold, down to a model that is always sure of itself: then it is 1.

    Source: Guo et al. 2017, section 4.2 (1706.04599), who do not treat images that are all right.
    """
    from scipy.optimize import minimize_scalar

    if bool((logits.argmax(dim=1) == labels).all()):
        return 1.0
    precise = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(precise / torch.tensor(log_temperature).double().exp(), labels))

    bound = float(torch.tensor(20.0).log())
    found = minimize_scalar(loss, bounds=(-bound, bound), method="bounded")
    return float(torch.tensor(float(found.x)).exp())
