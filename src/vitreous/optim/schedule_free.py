"""Gradients -> AdamW's steps with an average that makes a schedule unnecessary. Defazio et al. 2024 (2405.15682)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.optim.param_groups import ParamGroup

_EPSILON = 1e-8


class ScheduleFree(torch.optim.Optimizer):
    """AdamW on a sequence z; the gradient is taken between z and its average x, and x is what one evaluates.

    The model holds y = (1 − β₁) z + β₁ x, the point where gradients are taken; z is kept here, and `average` works x
    out of both. Early points count less in x: each as much as the square of its learning rate.

    Args:
        groups: From `param_groups`.
        lr: Learning rate: that of AdamW up to several times as much, after a warm-up constant.
        betas: β₁, the share of x in y, above 0; decay of the squared gradient's mean.

    Source:
        Defazio et al. 2024, algorithm 1 (2405.15682): decay at y; the correction of the squares' beginning is part of
        the learning rate. The warm-up comes from whoever sets the rate before each step.
    """

    def __init__(self, groups: Sequence[ParamGroup], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._betas = betas

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the weights that have a gradient."""
        beta1, beta2 = self._betas
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros(())
                    state["z"] = weight.detach().clone()
                    state["exp_avg_sq"] = torch.zeros_like(weight)
                    state["lr_squares"] = weight.new_zeros(())
                average, z = _average(weight, state["z"], beta1), state["z"]
                state["step"] += 1
                lr = group["lr"] * (1 - beta2 ** float(state["step"])) ** 0.5
                squares = state["exp_avg_sq"].lerp_(weight.grad.square(), 1 - beta2)
                z.addcdiv_(weight.grad, squares.sqrt().add_(_EPSILON), value=-lr)
                z.sub_(weight, alpha=lr * group["weight_decay"])
                state["lr_squares"] += lr**2
                average.lerp_(z, lr**2 / state["lr_squares"])
                weight.copy_(torch.lerp(z, average, beta1))

    @torch.no_grad()
    def average(self, weight: Tensor) -> Tensor:
        """The x of a parameter of the model, which itself holds y; a parameter that never moved is its own."""
        return _average(weight, self.state[weight]["z"], self._betas[0]) if weight in self.state else weight


def _average(weight: Tensor, z: Tensor, beta1: float) -> Tensor:
    """Solve y = (1 − β₁) z + β₁ x for x."""
    return torch.lerp(weight, z, 1 - 1 / beta1)
