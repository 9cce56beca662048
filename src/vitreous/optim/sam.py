"""Weights, gradient -> weights perturbed uphill for a moment: sharpness-aware minimization (SAM)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter


@contextmanager
def uphill(parameters: Iterable[Parameter], rho: float) -> Iterator[None]:
    """Perturb weights from w to w + ρ · g / ‖g‖ within this context, and restore them bit for bit at its end.

    Gradients are cleared at the start. Stepping from w along the gradient that is computed inside leads to weights
    where the loss is low in a whole neighborhood, not only at one point. Parameters without a gradient g are skipped.
    ‖g‖ is the norm over all of them, and `rho` the length ρ of the perturbation.

    Source: Foret et al. 2021, eq. 2 and algorithm 1 (2010.01412).
    """
    moved: list[Tensor] = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
    before = [parameter.detach().clone() for parameter in moved]
    with torch.no_grad():
        scale = rho / (torch.nn.utils.get_total_norm(gradients) + 1e-12)
        torch._foreach_add_(moved, list(torch._foreach_mul(gradients, scale)))
    for parameter in moved:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(moved, before)
