"""Logits, class indices -> cross-entropy with label smoothing."""

from torch import nn
from torch.nn import functional as F

from vitreous.tensors import Labels, Logits, Loss


class CrossEntropy(nn.Module):
    """Mean over the batch of −Σ target · log softmax(logits), in float32.

    The target is one-hot, mixed with the uniform distribution: (1 − s) · onehot + s / classes.

    Source: Szegedy et al. 2016, section 7 (1512.00567). No difference.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Logits, labels: Labels) -> Loss:
        """The loss of a batch; logits of any floating type are read as float32 at least."""
        precise = logits if logits.dtype.itemsize >= 4 else logits.float()
        return F.cross_entropy(precise, labels, label_smoothing=self.label_smoothing)
