"""Model, images, targets -> loss and logits: what one forward pass of training is asked for."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vitreous.tensors import Images, Labels, Logits, Loss, Probabilities


class Criterion(nn.Module, ABC):
    """Logits, targets -> loss: a sum over images, divided by a total that may be that of a larger batch.

    A batch that is cut into parts, over time or over devices, thus has the loss and the gradient of the whole, however
    unequal the parts are and whatever their images weigh: the losses of the parts add up to it.
    """

    def total(self, targets: Labels | Probabilities) -> Tensor:
        """What the sum of a batch's losses is divided by: the number of its images, or of what they weigh."""
        return torch.tensor(len(targets), dtype=torch.float32, device=targets.device)

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
