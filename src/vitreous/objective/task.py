"""Model, images, targets -> loss and logits: what one forward pass of training is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.tensors import Images, Labels, Logits, Loss, PerImage, Probabilities


class Criterion(nn.Module, ABC):
    """Logits, targets -> loss: a sum over images, divided by a total that may be that of a larger batch.

    A batch that is cut into parts, over time or over devices, thus has the loss and the gradient of the whole, however
    unequal the parts are and whatever their images weigh: the losses of the parts add up to it.

    With class weights it is what showing the images of class c w_c times as often would give: each label's own loss
    counts w_c, each label of a mixed image its share of that, and the sum is divided by the expected weights
    Σ target · w. Two images of equal weights are thus mixed as without weights.

    Args:
        class_weights: w, one for each class; None: all alike.
    """

    weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def total(self, targets: Labels | Probabilities) -> Tensor:
        """What the sum of a batch's losses is divided by: the number of its images, or of what they weigh."""
        return self.image_weights(targets).sum()

    def image_weights(self, targets: Labels | Probabilities) -> PerImage:
        """What each image counts: one; with class weights, the expected weight of its labels."""
        if self.weights is None:
            return torch.ones(len(targets), dtype=torch.float32, device=targets.device)
        return weighted_shares(targets, self.weights).sum(dim=1)

    @abstractmethod
    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """The loss of these images, in float32 at least.

        Args:
            logits: Of any floating type.
            targets: Class indices, or a probability for each class.
            total: Of the batch that these are a part of; None: these are all.
        """


class Task(nn.Module, ABC):
    """What a step of training minimises, and how it runs the model to get there."""

    @abstractmethod
    def total(self, targets: Labels | Probabilities) -> Tensor:
        """What `forward` divides by; see `Criterion.total`."""

    @abstractmethod
    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Logits]:
        """Run the model on images.

        Args:
            model: Images to logits.
            images: As the model takes them, mixed perhaps.
            targets: What it should say.
            total: Of the batch that these are a part of; None: these are all.

        Returns:
            The loss to go down, and the logits that the accuracy in training is counted by.
        """


class Supervised(Task):
    """The model's logits are compared with the targets, and nothing else.

    Args:
        criterion: Compares them.
    """

    def __init__(self, criterion: Criterion) -> None:
        super().__init__()
        self.criterion = criterion

    def total(self, targets: Labels | Probabilities) -> Tensor:
        """The criterion's."""
        return self.criterion.total(targets)

    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Logits]:
        """One forward pass."""
        logits = model(images)
        return self.criterion(logits, targets, total), logits


def weighted_shares(targets: Labels | Probabilities, weights: Tensor) -> Tensor:
    """`[batch, classes]`: each image's shares, times the weights of their classes."""
    shares = targets if targets.is_floating_point() else F.one_hot(targets, len(weights))
    return shares * weights


def divided(loss: Tensor, total: Tensor) -> Loss:
    """A sum over images by its total; where classes all weigh nothing, there is nothing to learn: 0, not 0 / 0."""
    return loss / total.clamp(min=torch.finfo(total.dtype).tiny)


def precise(logits: Logits) -> Logits:
    """Logits of any floating type as float32 at least."""
    return logits if logits.dtype.itemsize >= 4 else logits.float()
