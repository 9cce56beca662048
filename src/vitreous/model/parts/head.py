"""Features -> logits by two heads, one of which learns from a teacher."""

from torch import nn

from vitreous.tensors import Features, Logits


class DistilledHead(nn.Module):
    """Two linear layers, one on the class token and one on the distillation token; the logits are their mean.

    Args:
        num_features: Width of both tokens together.
        num_classes: Number of logits.

    Source:
        Touvron et al. 2021, section 4 (2012.12877): one learns from labels, one from the teacher; inference averages.
    """

    def __init__(self, *, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.label = nn.Linear(num_features // 2, num_classes)
        self.teacher = nn.Linear(num_features // 2, num_classes)

    def forward(self, features: Features) -> Logits:
        """Return the mean of both heads' logits."""
        by_label, by_teacher = self.both(features)
        return (by_label + by_teacher) / 2

    def both(self, features: Features) -> tuple[Logits, Logits]:
        """Return the logits of the class token, which learn from labels, and those of the distillation token."""
        of_class, of_distillation = features.chunk(2, dim=1)
        return self.label(of_class), self.teacher(of_distillation)
