"""Gradients -> Adam's steps, scaled to the norm of each weight matrix: LAMB. You et al. 2020 (1904.00962)."""

from collections.abc import Sequence

import torch

from vitreous.optim.param_groups import ParamGroup

_EPS = 1e-6
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Lamb(torch.optim.Optimizer):
    """Adam with the step of each matrix scaled to the norm of the matrix, which makes very large batches possible.

    The learning rate is the norm of a step as a fraction of the norm of the matrix; DeiT III uses 3e-3 to 5e-3.

    Source:
        You et al. 2020, algorithm 2 (1904.00962), with Adam's bias correction. Parameters without weight decay (biases,
        norms, tokens) take Adam's step unscaled, as in the code of the authors and of DeiT III.
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
            lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["step"] = torch.zeros(())
                    self.state[weight]["exp_avg"] = torch.zeros_like(weight)
                    self.state[weight]["exp_avg_sq"] = torch.zeros_like(weight)
            steps, means, squares = ([self.state[weight][key] for weight in weights] for key in _MOMENTS)
            torch._foreach_add_(steps, 1.0)
            torch._foreach_lerp_(means, gradients, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
            counts = [float(step) for step in steps]
            moves = torch._foreach_div(means, [1 - beta1**count for count in counts])
            scales = torch._foreach_sqrt(torch._foreach_div(squares, [1 - beta2**count for count in counts]))
            torch._foreach_add_(scales, _EPS)
            torch._foreach_div_(moves, scales)
            if decay:
                torch._foreach_add_(moves, weights, alpha=decay)
                torch._foreach_mul_(moves, _trust_ratios(weights, moves))
            torch._foreach_add_(weights, moves, alpha=-lr)


def _trust_ratios(weights: list[torch.Tensor], moves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the norm of each matrix divided by that of its step; 1 if either is zero."""
    norms, step_norms = torch._foreach_norm(weights), torch._foreach_norm(list(moves))
    return [
        torch.where((norm > 0) & (step_norm > 0), norm / step_norm, 1.0)
        for norm, step_norm in zip(norms, step_norms, strict=True)
    ]
