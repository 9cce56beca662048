"""Logits, targets -> the loss of logits with the classes' frequencies added, so that the model need not learn them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.objective.task import Criterion, precise
from vitreous.tensors import Labels, Logits, Loss, PerImage, Probabilities


class LogitAdjusted(Criterion):
    """A criterion of logits + τ · log prior, in training alone.

    What the prior explains, the model need not: its own logits call each class as if all were equally frequent. The
    loss of a mixed image is that of its labels by their shares, each adjusted as it would be alone.

    Args:
        criterion: Of the adjusted logits; linear in its targets.
        class_counts: Training images of each class; one without images is taken to have one.
        tau: 1 is what the error averaged over classes asks for; more goes further than that.

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
        """The criterion's."""
        return self.criterion.image_weights(targets)

    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """The criterion's loss of adjusted logits."""
        return self.criterion(precise(logits) + self.offsets, targets, total)
