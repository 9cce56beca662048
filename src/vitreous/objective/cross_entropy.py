"""Logits, class indices or soft targets -> cross-entropy with label smoothing and class weights."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.task import Criterion
from vitreous.tensors import Labels, Logits, Loss, Probabilities


class CrossEntropy(Criterion):
    """Mean over the batch of −Σ target · log softmax(logits), in float32.

    The target is one-hot or given, mixed with the uniform distribution: (1 − s) · target + s / classes.

    With class weights it is what showing the images of class c w_c times as often would give: each label's smoothed
    cross-entropy counts w_c, each label of a mixed image its share of that, and the sum is divided by the expected
    weights Σ target · w. Two images of equal weights are thus mixed as without weights.

    Args:
        label_smoothing: s, in [0, 1).
        class_weights: w, one for each class; None: all alike.

    Source:
        Szegedy et al. 2016, section 7 (1512.00567). No difference. PyTorch's `weight` weighs the smoothed share by the
        classes that it falls on, and divides soft targets by the batch size; else ours is equal.
    """

    weights: Tensor | None

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def total(self, targets: Labels | Probabilities) -> Tensor:
        """The number of images; with class weights, the sum of their expected weights."""
        return super().total(targets) if self.weights is None else _weighted(targets, self.weights).sum()

    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """The loss of a batch; logits of any floating type are read as float32 at least."""
        precise = logits if logits.dtype.itemsize >= 4 else logits.float()
        if self.weights is None:
            total = self.total(targets) if total is None else total
            targets = targets.to(precise.dtype) if targets.is_floating_point() else targets
            return F.cross_entropy(precise, targets, label_smoothing=self.label_smoothing, reduction="sum") / total
        weighted, losses = _weighted(targets, self.weights).to(precise.dtype), -precise.log_softmax(dim=1)
        own = (weighted * losses).sum()
        spread = (weighted.sum(dim=1) * losses.mean(dim=1)).sum()
        total = weighted.sum() if total is None else total
        # Nothing to learn from a batch whose classes all weigh nothing: 0, not 0 / 0.
        least = torch.finfo(total.dtype).tiny
        return ((1 - self.label_smoothing) * own + self.label_smoothing * spread) / total.clamp(min=least)


def _weighted(targets: Labels | Probabilities, weights: Tensor) -> Tensor:
    """`[batch, classes]`: each image's shares, times the weights of their classes."""
    shares = targets if targets.is_floating_point() else F.one_hot(targets, len(weights))
    return shares * weights


def balanced_class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights by which each class counts alike: images / (classes · images of the class), mean 1 over the images.

    Args:
        counts: Training images of each class, at least one in all.

    Returns:
        One weight for each class; 0 for a class without images, which is no one's target.

    Source: King & Zeng 2001, "Logistic regression in rare events data", eq. 7; scikit-learn's `balanced`.
    """
    present = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (present * count) if count else 0.0 for count in counts)
