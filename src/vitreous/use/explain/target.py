"""Logits -> the score that is explained: a class, or the difference between two classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.tensors import Logits, PerImage
from vitreous.wording import plural

ClassNumbers = int | Sequence[int] | Tensor
"""One class number for all images, or one for each."""


@dataclass(frozen=True)
class Target:
    """What is explained: the logit of a class, or how much higher it is than the logit of another class.

    Logits are explained instead of probabilities: a probability also rises when the logits of other classes fall, and
    hardly changes once it is close to 1.

    Attributes:
        classes: Class number for all images, or one for each image; None for the predicted class of each image.
        versus: Class number to compare with, or one for each image; None for no comparison.
    """

    classes: ClassNumbers | None = None
    versus: ClassNumbers | None = None

    def fixed(self, logits: Logits) -> "Target":
        """Return the same target with a class number for each image, so that changed images are scored alike.

        Raises:
            ConfigError: A class number does not exist, their count is not that of the images, or both classes are the
                same.
        """
        if self.classes is None:
            classes = logits.argmax(dim=1)
            if self.versus is not None:  # the most probable other class
                other = _numbers("versus", self.versus, logits)
                classes = logits.scatter(1, other[:, None], -torch.inf).argmax(dim=1)
        else:
            classes = _numbers("target", self.classes, logits)
        versus = None if self.versus is None else _numbers("versus", self.versus, logits)
        if versus is not None and bool((classes == versus).any()):
            number = int(classes[classes == versus][0])
            raise ConfigError(f"versus={number}: is the target itself; choose another class")
        return Target(classes, versus)

    def scores(self, logits: Logits) -> PerImage:
        """Return the explained score of each image. For logits of the same images as those given to `fixed`."""
        fixed = self.fixed(logits)
        found = logits.gather(1, torch.as_tensor(fixed.classes)[:, None])[:, 0]
        if fixed.versus is None:
            return found
        return found - logits.gather(1, torch.as_tensor(fixed.versus)[:, None])[:, 0]

    def of(self, numbers: Tensor) -> "Target":
        """Return the target of some images of the batch, by their numbers. For a target that `fixed` returned."""
        return Target(*(n[numbers.to(n.device)] if isinstance(n, Tensor) else n for n in (self.classes, self.versus)))


def _numbers(name: str, given: ClassNumbers, logits: Logits) -> Tensor:
    numbers = torch.as_tensor(given, device=logits.device)
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != len(logits)):
        raise ConfigError(
            f"{name}: has {plural(numbers.numel(), 'class number')} for {plural(len(logits), 'image')}; give one "
            "number for all images, or one for each"
        )
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise ConfigError(f"{name}={numbers.flatten()[0].item()}: is not a class number; give whole numbers")
    wrong = numbers[(numbers < 0) | (numbers >= logits.shape[1])]
    if wrong.numel():
        got = int(wrong.flatten()[0])
        raise ConfigError(f"{name}={got}: no such class; the model has classes 0 to {logits.shape[1] - 1}")
    # A copy, because a tensor made in inference mode cannot be kept for the backward pass.
    return numbers.long().clone().expand(len(logits))
