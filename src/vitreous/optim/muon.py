"""Gradients -> steps with orthogonal matrices: Muon for the encoder's weight matrices, AdamW for everything else."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vitreous.errors import ConfigError
from vitreous.optim.param_groups import ParamGroup

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of a quintic that, applied five times, moves singular values in (0, 1] to between 0.7 and 1.2."""


class Muon(torch.optim.Optimizer):
    """SGD with momentum and orthogonalized steps, which have the same size in all directions of a weight matrix.

    PyTorch's Muon computes in bfloat16 and one matrix at a time. On a CPU that emulates bfloat16, this takes many times
    as long as the model itself. Here, matrices of one shape are processed together, in `dtype`. The learning rate is as
    large as AdamW's, since steps are orthogonal matrices scaled by 0.2 · √(longer side).

    Args:
        groups: Groups that have only matrices.
        lr: Learning rate.
        num_stacked: Matrices that are several matrices on top of each other -> how many. Each of them is orthogonalized
            by itself, because queries, keys and values are separate maps that share a parameter.
        dtype: Type in which steps are orthogonalized; None for the type of the weights. bfloat16 is precise enough.

    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with Nesterov momentum as a
        running mean; Liu et al. 2025, section 2.2 (2502.16982), for the scale.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        *,
        lr: float,
        num_stacked: Mapping[Parameter, int] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._num_stacked = num_stacked or {}
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    num, momentum = self._num_stacked.get(weight, 1), self._momentum(weight, weight.grad)
                    for pair in zip(weight.chunk(num), momentum.chunk(num), strict=True):
                        by_shape.setdefault(pair[0].shape, []).append(pair)
            for shape, pairs in by_shape.items():
                weights = [weight for weight, _ in pairs]
                moves = orthogonalize(torch.stack([momentum for _, momentum in pairs]), self._dtype)
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, list(moves), alpha=-0.2 * max(shape) ** 0.5 * group["lr"])

    def _momentum(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Update the running mean of the gradients and return the Nesterov momentum."""
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        return torch.lerp(gradient, mean, MOMENTUM)


class MuonAdamW(torch.optim.Optimizer):
    """Muon and PyTorch's AdamW as a single optimizer, with one state dict.

    Muon updates the `hidden` matrices, in `dtype`, and AdamW, with `betas`, all other parameters; both have the same
    learning rate. `hidden` has the number of matrices that are stacked in each.

    Raises:
        ConfigError: There are no hidden matrices.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        hidden: Mapping[Parameter, int],
        *,
        lr: float,
        betas: tuple[float, float],
        dtype: torch.dtype | None = None,
    ) -> None:
        if not hidden:
            raise ConfigError("optim.name=muon: no weight matrix of the encoder is trained; use optim.name=adamw")
        for_muon, others = (_select(groups, hidden, is_inside=is_inside) for is_inside in (True, False))
        super().__init__([*for_muon, *others], {"lr": lr})
        self._num_muon_groups = len(for_muon)
        # The dictionary of a group is shared between this object and the optimizer that works on it.
        muon = Muon(self.param_groups[: len(for_muon)], lr=lr, num_stacked=hidden, dtype=dtype)
        self._optimizers: list[torch.optim.Optimizer] = [muon]
        if others:
            adamw = torch.optim.AdamW(self.param_groups[len(for_muon) :], lr=lr, betas=betas, fused=True)
            self._optimizers.append(adamw)
        self._share_state()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
        for optimizer in self._optimizers:
            optimizer.step()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        super().load_state_dict(dict(state_dict))
        self._share_state()

    def _share_state(self) -> None:
        """Let both optimizers work on the state and the groups of this object."""
        split = (self.param_groups[: self._num_muon_groups], self.param_groups[self._num_muon_groups :])
        for optimizer, groups in zip(self._optimizers, split, strict=False):
            optimizer.state, optimizer.param_groups = self.state, groups


def orthogonalize(matrices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Approximate the nearest orthogonal matrices: U S Vᵀ with singular values S between 0.7 and 1.2.

    The matrices are `[n, rows, columns]`. They are multiplied in `dtype`; None uses their own.

    Returns:
        `[n, rows, columns]` in the dtype of the matrices. A matrix of zeros stays zero.
    """
    rows, columns = matrices.shape[1:]
    # The Frobenius norm is at least the largest singular value, so all of them are in [0, 1] afterwards.
    found = (matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=1e-7)).to(dtype or matrices.dtype)
    found = found.mT.contiguous() if rows > columns else found
    first, third, fifth = NEWTON_SCHULZ
    for _ in range(5):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), found, beta=first)
    return (found.mT if rows > columns else found).to(matrices.dtype)


def _select(groups: Sequence[ParamGroup], hidden: Collection[Parameter], *, is_inside: bool) -> list[ParamGroup]:
    """Return the groups with only the parameters that are, or are not, among `hidden`; empty groups are left out."""
    inside = {id(parameter) for parameter in hidden}
    selected = [group | {"params": [p for p in group["params"] if (id(p) in inside) is is_inside]} for group in groups]
    return [group for group in selected if group["params"]]
