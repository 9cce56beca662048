"""Logits, sets of labels -> binary cross-entropy of images that may have several labels, or none."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.task import Criterion, at_least_float32
from vitreous.tensors import Logits, Loss, PerImage, Targets


class MultiLabelCrossEntropy(Criterion):
    """Binary cross-entropy for sets of labels: mean over batch and classes, in float32.

    The target t of a class is 1 if the image has the label, else 0, or between the two for a mixed image. Label
    smoothing s, in [0, 1), changes it to (1 − s) · t + s / 2. The class weights are those of the decisions for each
    class: (absent, present); None weights all equally.

    Source:
        `tf.keras.losses.BinaryCrossentropy`, also for the smoothing. Without weights and smoothing, PyTorch's
        `binary_cross_entropy_with_logits`.
    """

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[Sequence[float]] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        pairs = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", pairs, persistent=False)

    def image_weights(self, targets: Targets) -> PerImage:
        """Return 1 for each image, `[batch]`: the weights belong to decisions, not to images."""
        return torch.ones(len(targets), dtype=torch.float32, device=targets.device)

    def num_correct(self, logits: Logits, targets: Targets) -> Tensor:
        """Return the number of images for which each label is more probable than not, and no other class is."""
        present = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1])
        return ((logits > 0) == (present > 0.5)).all(dim=1).sum()

    def forward(self, logits: Logits, targets: Targets, total: Tensor | None = None) -> Loss:
        """Compute the loss of a batch, in float32 or better. Arguments are those of `Criterion.forward`."""
        logits, total = at_least_float32(logits), self.total(targets) if total is None else total
        present = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1])
        present = ((1 - self.label_smoothing) * present + self.label_smoothing / 2).to(logits.dtype)
        absent = 1 - present
        if self.weights is not None:
            absent, present = absent * self.weights[:, 0], present * self.weights[:, 1]
        losses = -present * F.logsigmoid(logits) - absent * F.logsigmoid(-logits)
        return losses.sum() / total / logits.shape[1]
