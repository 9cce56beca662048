"""Logits, targets -> loss of logits with class frequencies added: logit adjustment for rare classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.objective.task import Criterion, at_least_float32
from vitreous.tensors import Labels, Logits, Loss, PerImage, Probabilities


class LogitAdjusted(Criterion):
    """Loss of logits + τ · log prior, used in training only.

    The prior accounts for class frequencies, so that the model's own logits predict as if all classes were equally
    frequent. The loss of a mixed image is the mean of its labels' adjusted losses in their proportions.

    Args:
        criterion: Loss of the adjusted logits; must be linear in its targets.
        class_counts: Training images of each class; a class without images counts as having one.
        tau: Strength τ. 1 minimizes the error averaged over classes; larger values favor rare classes even more.

    Source:
        Menon et al. 2021, eq. 10 (2007.07314). No difference.
    """

    offsets: Tensor

    def __init__(self, criterion: Criterion, class_counts: Sequence[int], *, tau: float) -> None:
        super().__init__()
        self.criterion = criterion
        counts = torch.tensor(class_counts, dtype=torch.float64).clamp(min=1)
        self.register_buffer("offsets", (tau * (counts / counts.sum()).log()).float(), persistent=False)

    def image_weights(self, targets: Labels | Probabilities) -> PerImage:
        """Return the image weights of the criterion."""
        return self.criterion.image_weights(targets)

    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """Compute the criterion's loss of the adjusted logits."""
        return self.criterion(at_least_float32(logits) + self.offsets, targets, total)
