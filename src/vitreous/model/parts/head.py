"""Features -> logits of two linear layers, one of which learns from a teacher."""

from torch import nn

from vitreous.tensors import Features, Logits


class DistilledHead(nn.Module):
    """Two linear layers, one on the class token and one on the distillation token; the logits are their mean.

    `num_features` is the width of both tokens together.

    Source:
        Touvron et al. 2021, section 4 (2012.12877). One layer learns from labels, the other from the teacher; the mean
        is used in inference.
    """

    def __init__(self, *, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.label = nn.Linear(num_features // 2, num_classes)
        self.teacher = nn.Linear(num_features // 2, num_classes)

    def forward(self, features: Features) -> Logits:
        """Return the mean of the logits of both layers."""
        by_label, by_teacher = self.both(features)
        return (by_label + by_teacher) / 2

    def both(self, features: Features) -> tuple[Logits, Logits]:
        """Return the logits of the class token, which learn from labels, and those of the distillation token."""
        class_token, distill_token = features.chunk(2, dim=1)
        return self.label(class_token), self.teacher(distill_token)
