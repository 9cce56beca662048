"""Gradients -> AdamW steps with an average that replaces a schedule. Defazio et al. 2024 (2405.15682)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.optim.param_groups import ParamGroup

_EPSILON = 1e-8


class ScheduleFree(torch.optim.Optimizer):
    """AdamW on a sequence z, with gradients taken between z and its average x; x is used for evaluation.

    The parameters of the model are y = (1 − β₁) z + β₁ x, where gradients are taken. The optimizer state holds z, and
    `average` computes x from y and z. In x, each z is weighted by the square of its learning rate, so that the warm-up
    counts less.

    Args:
        groups: Parameter groups from `param_groups`.
        lr: Learning rate, constant after the warm-up; as large as AdamW's or several times larger.
        betas: β₁, the proportion of x in y, above 0; and the decay of the running mean of the squared gradients.

    Source:
        Defazio et al. 2024, algorithm 1 (2405.15682), with weight decay at y. Bias correction of the squared gradients
        is part of the learning rate. The warm-up is up to the caller, who sets the learning rate before each step.
    """

    def __init__(self, groups: Sequence[ParamGroup], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._betas = betas

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
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
        """Return the average x for a parameter, whose value is y; before the first step, the two are equal."""
        return _average(weight, self.state[weight]["z"], self._betas[0]) if weight in self.state else weight


def _average(weight: Tensor, z: Tensor, beta1: float) -> Tensor:
    """Return x, the solution of y = (1 − β₁) z + β₁ x, for y = `weight`."""
    return torch.lerp(weight, z, 1 - 1 / beta1)
