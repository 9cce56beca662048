"""Model, images, targets -> loss and logits: one forward pass of training."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.tensors import Images, Labels, Logits, Loss, PerImage, Probabilities


class Criterion(nn.Module, ABC):
    """Loss of logits and targets: a sum over images, divided by a total that may be that of a larger batch.

    The losses and gradients of micro-batches, or of the parts of a batch on several devices, therefore add up to those
    of the whole batch, whatever the sizes and image weights of the parts.

    With class weights, the loss is what it would be if images of class c were shown w_c times as often. Each label's
    loss is multiplied by its weight and, for a mixed image, by its proportion; the sum is divided by the sum of these
    weights. Mixing two images of equal weight is therefore the same as without weights. Without class weights, all are
    equal.
    """

    weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def total(self, targets: Labels | Probabilities) -> Tensor:
        """Return the sum of the image weights, by which the sum of a batch's losses is divided."""
        return self.image_weights(targets).sum()

    def image_weights(self, targets: Labels | Probabilities) -> PerImage:
        """Return the weight of each image, `[batch]`: 1, or with class weights the mean weight of its labels."""
        if self.weights is None:
            return torch.ones(len(targets), dtype=torch.float32, device=targets.device)
        return weighted_shares(targets, self.weights).sum(dim=1)

    def num_correct(self, logits: Logits, targets: Labels | Probabilities) -> Tensor:
        """Count the images with the largest logit at the right class; of a mixed image, at its main class."""
        true = targets.argmax(dim=1) if targets.is_floating_point() else targets
        return (logits.argmax(dim=1) == true).sum()

    @abstractmethod
    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """Compute the loss of these images, in float32 or better.

        Targets are class indices, `[batch]`, or probabilities, `[batch, classes]`. `total` is that of the whole batch
        if these images are only a part of it; None computes it from `targets`.
        """


class Task(nn.Module, ABC):
    """Loss that training minimizes, together with the forward pass that it needs."""

    @abstractmethod
    def total(self, targets: Labels | Probabilities) -> Tensor:
        """Return the total that `forward` divides by; see `Criterion.total`."""

    @abstractmethod
    def num_correct(self, logits: Logits, targets: Labels | Probabilities) -> Tensor:
        """Return the number of images that the logits get right; see `Criterion.num_correct`."""

    @abstractmethod
    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Logits]:
        """Run the model on images and compute the loss.

        Images may be mixed. Targets and total are those of `Criterion.forward`.

        Returns:
            The loss, and the logits from which the training accuracy is computed.
        """


class LabeledTask(Task, ABC):
    """A task whose loss depends on labels; the criterion compares them with logits."""

    def __init__(self, criterion: Criterion) -> None:
        super().__init__()
        self.criterion = criterion

    def total(self, targets: Labels | Probabilities) -> Tensor:
        """Return the criterion's total."""
        return self.criterion.total(targets)

    def num_correct(self, logits: Logits, targets: Labels | Probabilities) -> Tensor:
        """Return the number of images that are right according to the criterion."""
        return self.criterion.num_correct(logits, targets)


class UnlabeledTask(Task, ABC):
    """A task that ignores the labels: the loss is a mean over images, and no image is right or wrong."""

    def total(self, targets: Labels | Probabilities) -> Tensor:
        """Return the number of images."""
        return torch.tensor(float(len(targets)), device=targets.device)

    def num_correct(self, logits: Tensor, targets: Labels | Probabilities) -> Tensor:
        """Return 0."""
        return torch.zeros((), dtype=torch.int64, device=targets.device)


class Supervised(LabeledTask):
    """Supervised training: the loss of the model's logits and the targets."""

    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Logits]:
        """Run the model once and compute the criterion's loss. Arguments are those of `Task.forward`."""
        logits = model(images)
        return self.criterion(logits, targets, total), logits


def weighted_shares(targets: Labels | Probabilities, weights: Tensor) -> Tensor:
    """Return each image's targets as probabilities, multiplied by the class weights, `[batch, classes]`."""
    shares = targets if targets.is_floating_point() else F.one_hot(targets, len(weights))
    return shares * weights


def divide(loss: Tensor, total: Tensor) -> Loss:
    """Divide a sum over images by its total. Return 0 instead of 0 / 0 if all classes have weight 0."""
    return loss / total.clamp(min=torch.finfo(total.dtype).tiny)


def at_least_float32(logits: Logits) -> Logits:
    """Convert half-precision logits to float32; leave float32 and float64 as they are."""
    return logits if logits.dtype.itemsize >= 4 else logits.float()
