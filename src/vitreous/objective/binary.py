"""Logits, class indices or soft targets -> binary cross-entropy: each class is a question of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.task import Criterion, divided, precise, weighted_shares
from vitreous.tensors import Labels, Logits, Loss, Probabilities


class BinaryCrossEntropy(Criterion):
    """Mean over batch and classes of −t · log σ(x) − (1 − t) · log(1 − σ(x)), in float32.

    The target t is one-hot or given; with a threshold, 1 where what is given is above it and else 0, so that a mixed
    image shows both of its classes in full. Then it is smoothed: (1 − s) · t + s / classes.

    Args:
        label_smoothing: s, in [0, 1).
        threshold: In [0, 1); None takes shares as they are.
        class_weights: As in `Criterion`.

    Source:
        Wightman et al. 2021, section 3.1 (2110.00476): threshold 0.2. Touvron et al. 2022, section 3 (2204.07118): 0 in
        their code. timm smooths before it compares with the threshold, which undoes the smoothing, or, with a
        threshold below s / classes, makes every class a target.
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
        """The loss of a batch; logits of any floating type are read as float32 at least."""
        logits, total = precise(logits), self.total(targets) if total is None else total
        num_classes = logits.shape[1]
        weights = logits.new_ones(num_classes) if self.weights is None else self.weights
        shares = weighted_shares(targets, torch.ones_like(weights))
        yes = shares * weights
        every = yes.sum(dim=1, keepdim=True)
        if self.threshold is not None:
            yes = (shares > self.threshold) * every
        yes = ((1 - self.label_smoothing) * yes + self.label_smoothing / num_classes * every).to(logits.dtype)
        no = every.to(logits.dtype) - yes
        # Neither term is ever negative: no digits are lost, however sure the model is.
        losses = -yes * F.logsigmoid(logits) - no * F.logsigmoid(-logits)
        return divided(losses.sum(), total) / num_classes
