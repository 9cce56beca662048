"""Logits, class indices or soft targets -> binary cross-entropy, a separate yes/no decision for each class."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.task import Criterion, at_least_float32, divide, weighted_shares
from vitreous.tensors import Labels, Logits, Loss, Probabilities


class BinaryCrossEntropy(Criterion):
    """Binary cross-entropy: mean over batch and classes of −t · log σ(x) − (1 − t) · log(1 − σ(x)), in float32.

    The target t is one-hot for a class index, or a given probability. With a threshold, probabilities above it become 1
    and all others 0, so that a mixed image fully shows both of its classes; without, they are used as they are. Label
    smoothing s then changes t to (1 − s) · t + s / classes. Threshold and s are in [0, 1).

    Source:
        Wightman et al. 2021, section 3.1 (2110.00476), with threshold 0.2. Touvron et al. 2022, section 3 (2204.07118),
        with threshold 0 in their code. timm smooths before it applies the threshold, which undoes the smoothing, or
        makes every class a target if the threshold is below s / classes.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        threshold: float | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing
        self.threshold = threshold

    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """Compute the loss of a batch, in float32 or better. Arguments are those of `Criterion.forward`."""
        logits, total = at_least_float32(logits), self.total(targets) if total is None else total
        num_classes = logits.shape[1]
        weights = logits.new_ones(num_classes) if self.weights is None else self.weights
        shares = weighted_shares(targets, torch.ones_like(weights))
        positive = shares * weights
        both = positive.sum(dim=1, keepdim=True)
        if self.threshold is not None:
            positive = (shares > self.threshold) * both
        positive = (1 - self.label_smoothing) * positive + self.label_smoothing / num_classes * both
        positive = positive.to(logits.dtype)
        negative = both.to(logits.dtype) - positive
        # Both terms are at least 0, so that no precision is lost by cancellation, even for large logits.
        losses = -positive * F.logsigmoid(logits) - negative * F.logsigmoid(-logits)
        return divide(losses.sum(), total) / num_classes
