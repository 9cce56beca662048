"""Gradients -> steps whose matrices are orthogonal: Muon inside the encoder, AdamW for the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from vitreous.errors import ConfigError
from vitreous.optim.param_groups import ParamGroup

MOMENTUM = 0.95


class MuonAdamW(torch.optim.Optimizer):
    """Two optimisers of PyTorch that are driven, saved and loaded as one.

    Args:
        groups: From `param_groups`.
        hidden: The matrices that Muon moves; AdamW moves all others.
        lr: Learning rate of both: Muon's steps are scaled to the size that AdamW's have.
        betas: AdamW's.

    Raises:
        ConfigError: No hidden matrices.

    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers", for the method; Liu et al. 2025, section 2.2
        (2502.16982), for the scale 0.2 · √(longer side), by which rate and decay of AdamW hold for both.
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
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(self.param_groups[: len(ours)], lr=lr, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
        ]
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


def _part(group: ParamGroup, inside: set[int], *, within: bool) -> ParamGroup:
    params = [parameter for parameter in group["params"] if (id(parameter) in inside) is within]
    return group | {"params": params}
