"""Gradients -> steps that are all signs: Lion, one moment instead of two. Chen et al. 2023 (2302.06675)."""

from collections.abc import Sequence

import torch

from vitreous.optim.param_groups import ParamGroup


class Lion(torch.optim.Optimizer):
    """Every weight moves by the learning rate exactly, in the direction of a mean of past gradients and this one.

    Args:
        groups: From `param_groups`.
        lr: Learning rate: a third to a tenth of AdamW's, as a step is larger; the decay as much larger.
        betas: Decay of the mean that decides the direction, and of the mean that is kept.

    Source:
        Chen et al. 2023, algorithm 2 (2302.06675).
    """

    def __init__(self, groups: Sequence[ParamGroup], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the weights that have a gradient."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            lr, (beta1, beta2) = group["lr"], group["betas"]
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["exp_avg"] = torch.zeros_like(weight)
            means = [self.state[weight]["exp_avg"] for weight in weights]
            directions = torch._foreach_lerp(means, gradients, 1 - beta1)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
            torch._foreach_add_(weights, directions, alpha=-lr)
            torch._foreach_lerp_(means, gradients, 1 - beta2)
