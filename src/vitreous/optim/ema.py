"""Weights of each step -> their exponential moving average."""

import copy
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def ema_decay(step: int, *, total_steps: int, window_ratio: float) -> float:
    """Return the decay for an average over a fixed fraction of the run, however short the run is.

    A fixed decay such as 0.9999 averages over about 10,000 steps: after a run of 2,000 steps the average is still
    dominated by the random initial weights and is near chance. Here the window is `window_ratio · total_steps` steps.
    Early in the run it is shorter and grows with the number of steps. `step` is the number of optimizer steps before
    this one, and `window_ratio` the window as a fraction of the run, above 0.

    Returns:
        Weight of the previous average, in [0, 1).
    """
    window_steps = max(1.0, window_ratio * total_steps)
    return min(1 - 1 / window_steps, step / (step + 10))


class Ema(Generic[Model]):
    """Exponential moving average of a model's weights, kept in a copy of the model that is in evaluation mode."""

    def __init__(self, model: Model) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.follow(model)

    def follow(self, model: Model) -> None:
        """Average the weights of this model from now on. Needed after sharding, which replaces a model's parameters."""
        pairs = list(zip(self.model.parameters(), model.parameters(), strict=True))
        # Frozen weights are not averaged: they are equal to their average.
        self._averages: list[Tensor] = [average for average, weight in pairs if weight.requires_grad]
        self._weights: list[Tensor] = [weight for _, weight in pairs if weight.requires_grad]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Update the average: average ← decay · average + (1 − decay) · weights."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    @torch.no_grad()
    def take(self, average: Callable[[Tensor], Tensor]) -> None:
        """Copy averages that the optimizer computes itself; `average` maps a parameter to its average."""
        for stored, weight in zip(self._averages, self._weights, strict=True):
            stored.copy_(average(weight))
