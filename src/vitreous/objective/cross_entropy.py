"""Logits, class indices or soft targets -> cross-entropy with label smoothing and class weights."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.task import Criterion, at_least_float32, divide, weighted_shares
from vitreous.tensors import Labels, Logits, Loss, Probabilities


class CrossEntropy(Criterion):
    """Softmax cross-entropy: mean over the batch of −Σ target · log softmax(logits), in float32.

    The target is one-hot for a class index, or given probabilities. Label smoothing s, in [0, 1), changes it to
    (1 − s) · target + s / classes.

    Source:
        Szegedy et al. 2016, section 7 (1512.00567). Equal to PyTorch's cross-entropy, except that its `weight` applies
        each class's weight to the smoothing spread over that class, and that it divides the loss of weighted soft
        targets by the batch size.
    """

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """Compute the loss of a batch, in float32 or better. Arguments are those of `Criterion.forward`."""
        logits, total = at_least_float32(logits), self.total(targets) if total is None else total
        if self.weights is None:
            targets = targets.to(logits.dtype) if targets.is_floating_point() else targets
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing, reduction="sum") / total
        weighted, losses = weighted_shares(targets, self.weights).to(logits.dtype), -logits.log_softmax(dim=1)
        own = (weighted * losses).sum()
        spread = (weighted.sum(dim=1) * losses.mean(dim=1)).sum()
        return divide((1 - self.label_smoothing) * own + self.label_smoothing * spread, total)


def balanced_class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Return weights that give each class the same total: images / (classes · images of the class).

    Their mean over the images is 1. A class without images gets 0; some class must have images.

    Source: King & Zeng 2001, "Logistic regression in rare events data", eq. 7; scikit-learn's `balanced`.
    """
    present = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (present * count) if count else 0.0 for count in counts)
