"""Gradients -> Adam's steps with a fraction of its memory: Adafactor as Vision Transformers use it (2106.04560)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.optim.param_groups import ParamGroup

LEAST_FACTORED = 32
"""Rows and columns from which on a matrix keeps sums of its squared gradients instead of all of them."""
_TINY = 1e-30
_POWER = 0.8


class Adafactor(torch.optim.Optimizer):
    """Adam whose second moment is an outer product of a column and a row, and whose first is kept in half precision.

    Args:
        groups: From `param_groups`.
        lr: Learning rate; AdamW's suits.
        betas: Decay of the mean step; the largest decay of the squared gradient's mean, which is 1 − t^−0.8 at step t
            and so needs no correction of its beginning.

    Source:
        Zhai et al. 2022, section 3.4 (2106.04560), after Shazeer & Stern 2018 (1804.04235), as big_vision has it:
        steps are not scaled by the size of the weights, which PyTorch's own Adafactor insists on, nor clipped. Their
        decay is apart from the peak rate; ours is `lr · weight_decay`, as with every optimiser here.
    """

    def __init__(self, groups: Sequence[ParamGroup], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the weights that have a gradient."""
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
                # Loading a state casts it to the weight's type, which loses nothing; here it becomes small again.
                state["exp_avg"] = mean.to(torch.bfloat16)


def factored_dims(shape: torch.Size) -> tuple[int, int] | None:
    """The two longest dimensions, where both have at least `LEAST_FACTORED` entries; else None."""
    by_length = sorted(range(len(shape)), key=lambda dim: shape[dim])
    if len(shape) < 2 or shape[by_length[-2]] < LEAST_FACTORED:
        return None
    return by_length[-2], by_length[-1]


def _precondition(gradient: Tensor, state: dict[str, Tensor], *, beta2_cap: float) -> Tensor:
    """The gradient over the root of its squares' mean over time, which is brought up to date in `state`."""
    state["step"] += 1
    beta2 = min(beta2_cap, 1 - float(state["step"]) ** -_POWER)
    squares = gradient.square().add_(_TINY)
    dims = factored_dims(gradient.shape)
    if dims is None:
        return gradient * _follow(state, "exp_avg_sq", squares, beta2).rsqrt()
    short, long = dims
    rows = _follow(state, "exp_avg_sq_row", squares.mean(dim=long, keepdim=True), beta2)
    columns = _follow(state, "exp_avg_sq_column", squares.mean(dim=short, keepdim=True), beta2)
    # Factor by factor: the product of two tiny means would be zero.
    return gradient * (rows / rows.mean(dim=short, keepdim=True)).rsqrt() * columns.rsqrt()


def _follow(state: dict[str, Tensor], name: str, values: Tensor, beta2: float) -> Tensor:
    mean = state.setdefault(name, torch.zeros_like(values))
    return mean.lerp_(values, 1 - beta2)
