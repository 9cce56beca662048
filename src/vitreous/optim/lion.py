"""Gradients -> steps of plus or minus the learning rate: Lion. Chen et al. 2023 (2302.06675)."""

from collections.abc import Sequence

import torch

from vitreous.optim.param_groups import ParamGroup


class Lion(torch.optim.Optimizer):
    """Lion: every weight moves by exactly the learning rate, in the direction of a running mean of the gradients.

    Steps are larger than AdamW's, so use a third to a tenth of its learning rate, and increase the weight decay by the
    same factor. `betas` are the decay of the running mean that gives the direction, and of the one that is stored.

    Source:
        Chen et al. 2023, algorithm 2 (2302.06675).
    """

    def __init__(self, groups: Sequence[ParamGroup], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
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
