"""Gradients -> steps like Adam's with a fraction of its memory: Adafactor for Vision Transformers (2106.04560)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.optim.param_groups import ParamGroup

MIN_FACTORED_SIZE = 32
"""Fewest rows and columns of a matrix whose second moment is stored as one row and one column."""
_TINY = 1e-30  # Added to squared gradients, so that no mean is zero.
_DECAY_EXPONENT = 0.8


class Adafactor(torch.optim.Optimizer):
    """Adam with a factored second moment (one row and one column per matrix) and a first moment in bfloat16.

    The learning rate is as large as AdamW's. `betas` are the decay of the running mean of the steps, and the largest
    decay of the running mean of the squared gradients. The latter's decay is 1 − t^−0.8 at step t, which needs no bias
    correction.

    Source:
        Zhai et al. 2022, section 3.4 (2106.04560), after Shazeer & Stern 2018 (1804.04235), as in big_vision: steps are
        neither clipped nor scaled by the size of the weights, as PyTorch's Adafactor always does. Weight decay is
        independent of the learning rate there; here it is `lr · weight_decay`, as for every optimizer.
    """

    def __init__(self, groups: Sequence[ParamGroup], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
        for group in self.param_groups:
            lr, (beta1, beta2_cap) = group["lr"], group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(weight, dtype=torch.bfloat16)
                direction = _precondition(weight.grad, state, beta2_cap=beta2_cap)
                mean = state["exp_avg"].to(weight.dtype).lerp_(direction, 1 - beta1)
                weight.mul_(1 - lr * group["weight_decay"]).sub_(mean, alpha=lr)
                # Loading a state dict casts this to the dtype of the weight, without loss. Cast it back.
                state["exp_avg"] = mean.to(torch.bfloat16)


def factored_dims(shape: torch.Size) -> tuple[int, int] | None:
    """Return the two longest dimensions, shorter first, if both have `MIN_FACTORED_SIZE` entries; otherwise None."""
    by_length = sorted(range(len(shape)), key=lambda dim: shape[dim])
    if len(shape) < 2 or shape[by_length[-2]] < MIN_FACTORED_SIZE:
        return None
    return by_length[-2], by_length[-1]


def _precondition(gradient: Tensor, state: dict[str, Tensor], *, beta2_cap: float) -> Tensor:
    """Update the running mean of squared gradients in `state`, and return the gradient divided by its root."""
    state["step"] += 1
    beta2 = min(beta2_cap, 1 - float(state["step"]) ** -_DECAY_EXPONENT)
    squares = gradient.square().add_(_TINY)
    dims = factored_dims(gradient.shape)
    if dims is None:
        return gradient * _update_mean(state, "exp_avg_sq", squares, beta2).rsqrt()
    short, long = dims
    rows = _update_mean(state, "exp_avg_sq_row", squares.mean(dim=long, keepdim=True), beta2)
    columns = _update_mean(state, "exp_avg_sq_column", squares.mean(dim=short, keepdim=True), beta2)
    # Multiplied one by one: the product of two tiny means would underflow to zero.
    return gradient * (rows / rows.mean(dim=short, keepdim=True)).rsqrt() * columns.rsqrt()


def _update_mean(state: dict[str, Tensor], name: str, values: Tensor, beta2: float) -> Tensor:
    mean = state.setdefault(name, torch.zeros_like(values))
    return mean.lerp_(values, 1 - beta2)
