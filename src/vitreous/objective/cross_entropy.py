"""Logits, class indices or soft targets -> cross-entropy with label smoothing and class weights."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.task import Criterion, divided, precise, weighted_shares
from vitreous.tensors import Labels, Logits, Loss, Probabilities


class CrossEntropy(Criterion):
    """Mean over the batch of −Σ target · log softmax(logits), in float32.

    The target is one-hot or given, mixed with the uniform distribution: (1 − s) · target + s / classes.

    Args:
        label_smoothing: s, in [0, 1).
        class_weights: As in `Criterion`.

    Source:
        Szegedy et al. 2016, section 7 (1512.00567). No difference. PyTorch's `weight` weighs the smoothed share by the
        classes that it falls on, and divides soft targets by the batch size; else ours is equal.
    """

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """The loss of a batch; logits of any floating type are read as float32 at least."""
        logits, total = precise(logits), self.total(targets) if total is None else total
        if self.weights is None:
            targets = targets.to(logits.dtype) if targets.is_floating_point() else targets
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing, reduction="sum") / total
        weighted, losses = weighted_shares(targets, self.weights).to(logits.dtype), -logits.log_softmax(dim=1)
        own = (weighted * losses).sum()
        spread = (weighted.sum(dim=1) * losses.mean(dim=1)).sum()
        return divided((1 - self.label_smoothing) * own + self.label_smoothing * spread, total)


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
