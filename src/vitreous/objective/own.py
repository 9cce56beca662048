"""A loss of the user's own -> a criterion, which sums it over the images of a batch."""

from collections.abc import Callable, Sequence

from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.objective.task import Criterion, at_least_float32, divide
from vitreous.tensors import Labels, Logits, Loss, Probabilities


class OwnLoss(Criterion):
    """The mean over a batch of a loss that `vitreous.register` was given; with class weights, the weighted mean.

    Args:
        loss: Takes logits and targets as `Criterion.forward` does, and returns the loss of each image.
        class_weights: Weight of each class; None for equal ones.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], class_weights: Sequence[float] | None = None) -> None:
        super().__init__(class_weights)
        self.loss = loss

    def forward(self, logits: Logits, targets: Labels | Probabilities, total: Tensor | None = None) -> Loss:
        """Compute the loss of a batch. Arguments are those of `Criterion.forward`.

        Raises:
            ConfigError: The loss does not return one number for each image.
        """
        losses = self.loss(at_least_float32(logits), targets)
        if losses.shape != (len(logits),):
            raise ConfigError(
                f"loss={list(losses.shape)}: is the shape of what your loss returns for {len(logits)} images; return "
                "one number for each image"
            )
        weights = self.image_weights(targets)
        return divide((losses * weights).sum(), weights.sum() if total is None else total)
