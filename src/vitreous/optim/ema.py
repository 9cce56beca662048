"""Weights of each step -> their exponential moving average."""

import copy
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def ema_decay(step: int, *, total_steps: int, window_ratio: float) -> float:
    """The decay that makes the average look back over a share of the run, however short the run is.

    A fixed decay such as 0.9999 remembers 10,000 steps: after a run of 2,000 the average still holds the random initial
    weights and is near chance. Here the window is `window_ratio · total_steps` steps; early on it grows with the run.

    Args:
        step: Optimiser steps taken before this one, from 0.
        total_steps: Length of the run.
        window_ratio: Window as a share of the run, above 0.

    Returns:
        The weight of the old average, in [0, 1).
    """
    window_steps = max(1.0, window_ratio * total_steps)
    return min(1 - 1 / window_steps, step / (step + 10))


class Ema(Generic[Model]):
    """A second copy of the model that follows the first one smoothly; made for evaluation, takes no gradients."""

    def __init__(self, model: Model) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.follow(model)

    def follow(self, model: Model) -> None:
        """Take the weights of this model from now on: dividing it among devices made other parameters of them."""
        pairs = list(zip(self.model.parameters(), model.parameters(), strict=True))
        # What never changes is its own average.
        self._averages: list[Tensor] = [average for average, weight in pairs if weight.requires_grad]
        self._weights: list[Tensor] = [weight for _, weight in pairs if weight.requires_grad]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move on by one step: average ← decay · average + (1 − decay) · weights."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    @torch.no_grad()
    def take(self, average: Callable[[Tensor], Tensor]) -> None:
        """Take over, for each parameter of the model, the average that an optimiser keeps itself."""
        for mine, weight in zip(self._averages, self._weights, strict=True):
            mine.copy_(average(weight))
