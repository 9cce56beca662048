"""Features -> logits."""

from torch import nn

from vitreous.tensors import Features, Logits


class Head(nn.Linear):
    """One linear layer; a Linear itself, so that its weights are `head.weight` and `head.bias` as in timm.

    Args:
        embed_dim: Width of the features.
        num_classes: Number of logits.
    """

    def __init__(self, *, embed_dim: int, num_classes: int) -> None:
        super().__init__(embed_dim, num_classes)

    def forward(self, features: Features) -> Logits:
        """Score every class."""
        return super().forward(features)
