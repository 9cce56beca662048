"""Features -> logits."""

from torch import nn

from vitreous.tensors import Features, Logits


class Head(nn.Linear):
    """One linear layer; a Linear itself, so that its weights are `head.weight` and `head.bias` as in timm.

    Args:
        num_features: Width of the features.
        num_classes: Number of logits.
    """

    def __init__(self, *, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes)

    def forward(self, features: Features) -> Logits:
        """Score every class."""
        return super().forward(features)


class DistilledHead(nn.Module):
    """Two linear layers, one on the class token and one on the distillation token; their mean scores the classes.

    Args:
        num_features: Width of both tokens together.
        num_classes: Number of logits.

    Source:
        Touvron et al. 2021, section 4 (2012.12877): the two learn from label and teacher, and are averaged afterwards.
    """

    def __init__(self, *, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.label = nn.Linear(num_features // 2, num_classes)
        self.teacher = nn.Linear(num_features // 2, num_classes)

    def forward(self, features: Features) -> Logits:
        """Score every class: the mean of both."""
        by_label, by_teacher = self.both(features)
        return (by_label + by_teacher) / 2

    def both(self, features: Features) -> tuple[Logits, Logits]:
        """The class token's logits, to be compared with labels, and the distillation token's, with a teacher's."""
        of_class, of_distillation = features.chunk(2, dim=1)
        return self.label(of_class), self.teacher(of_distillation)
