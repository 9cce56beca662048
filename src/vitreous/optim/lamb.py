"""Gradients -> Adam's steps, each matrix's as long as a share of that matrix: LAMB. You et al. 2020 (1904.00962)."""

from collections.abc import Sequence

import torch

from vitreous.optim.param_groups import ParamGroup

_EPS = 1e-6


class Lamb(torch.optim.Optimizer):
    """Adam whose step of a matrix is brought to the length of the matrix, so that batches may be very large.

    Args:
        groups: From `param_groups`.
        lr: Learning rate: a step's length as a share of the matrix's; 3e-3 to 5e-3 in DeiT III.
        betas: Decay of the gradient's running mean, and of its square's.

    Source:
        You et al. 2020, algorithm 2 (1904.00962), with Adam's corrected means. What does not decay (biases, norms,
        tokens) takes Adam's step as it is, as in the authors' and DeiT III's code.
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
                torch._foreach_mul_(moves, _trust(weights, moves))
            torch._foreach_add_(weights, moves, alpha=-lr)


def _trust(weights: list[torch.Tensor], moves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Length of each matrix over that of its move; 1 where either is zero."""
    lengths, strides = torch._foreach_norm(weights), torch._foreach_norm(list(moves))
    return [
        torch.where((length > 0) & (stride > 0), length / stride, 1.0)
        for length, stride in zip(lengths, strides, strict=True)
    ]


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
