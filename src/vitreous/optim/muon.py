"""Gradients -> steps whose matrices are orthogonal: Muon inside the encoder, AdamW for the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vitreous.errors import ConfigError
from vitreous.optim.param_groups import ParamGroup

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of a quintic that, five times over, brings singular values from (0, 1] to between 0.7 and 1.2."""


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal: all directions that a layer can move in move alike.

    PyTorch's own computes in bfloat16 and one matrix at a time, which on a processor that only imitates bfloat16 takes
    many times as long as the model; here matrices of one shape go together, on a CPU in their own precision.

    Args:
        groups: From `param_groups`, matrices alone.
        lr: Learning rate; AdamW's suits, as steps are scaled to 0.2 · √(longer side) of an orthogonal matrix.

    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with Nesterov's momentum as a
        running mean; Liu et al. 2025, section 2.2 (2502.16982), for the scale.
    """

    def __init__(self, groups: Sequence[ParamGroup], *, lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the weights that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append((weight, self._ahead(weight, weight.grad)))
            for shape, pairs in by_shape.items():
                weights = [weight for weight, _ in pairs]
                moves = orthogonalise(torch.stack([ahead for _, ahead in pairs]))
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, list(moves), alpha=-0.2 * max(shape) ** 0.5 * group["lr"])

    def _ahead(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """The running mean of gradients, brought up to date, and a step further along the newest."""
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        return torch.lerp(gradient, mean, MOMENTUM)


class MuonAdamW(torch.optim.Optimizer):
    """Muon and PyTorch's AdamW, driven, saved and loaded as one.

    Args:
        groups: From `param_groups`.
        hidden: The matrices that Muon moves; AdamW moves all others.
        lr: Learning rate of both.
        betas: AdamW's.

    Raises:
        ConfigError: No hidden matrices.
    """

    def __init__(
        self, groups: Sequence[ParamGroup], hidden: Sequence[Parameter], *, lr: float, betas: tuple[float, float]
    ) -> None:
        if not hidden:
            raise ConfigError("optim.name=muon: no matrix of the encoder is trained; use adamw")
        inside = {id(parameter) for parameter in hidden}
        ours = [part for group in groups if (part := _part(group, inside, within=True))["params"]]
        others = [part for group in groups if (part := _part(group, inside, within=False))["params"]]
        super().__init__([*ours, *others], {"lr": lr})
        self._num_ours = len(ours)
        # A group is one dictionary for this object and for the optimiser that works with it.
        self._parts: list[torch.optim.Optimizer] = [Muon(self.param_groups[: len(ours)], lr=lr)]
        if others:
            self._parts.append(torch.optim.AdamW(self.param_groups[len(ours) :], lr=lr, betas=betas, fused=True))
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the weights that have a gradient."""
        for part in self._parts:
            part.step()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(dict(state_dict))
        self._share()

    def _share(self) -> None:
        """Moments and groups are kept here; both parts work on them."""
        shares = (self.param_groups[: self._num_ours], self.param_groups[self._num_ours :])
        for part, groups in zip(self._parts, shares, strict=False):
            part.state, part.param_groups = self.state, groups


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: U S Vᵀ with the singular values S between 0.7 and 1.2.

    Args:
        matrices: `[n, rows, columns]`; on a GPU they are multiplied in bfloat16, which is enough for so rough a goal.

    Returns:
        `[n, rows, columns]`, in their dtype; zero for a matrix of zeros.
    """
    rows, columns = matrices.shape[1:]
    found = matrices.bfloat16() if matrices.is_cuda else matrices
    found = found.mT if rows > columns else found
    # Longer than its largest singular value: the quintic starts from values in [0, 1].
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=1e-7)
    first, third, fifth = NEWTON_SCHULZ
    for _ in range(5):
        gram = found @ found.mT
        found = first * found + (third * gram + fifth * gram @ gram) @ found
    return (found.mT if rows > columns else found).to(matrices.dtype)


def _part(group: ParamGroup, inside: set[int], *, within: bool) -> ParamGroup:
    params = [parameter for parameter in group["params"] if (id(parameter) in inside) is within]
    return group | {"params": params}
