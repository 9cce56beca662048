"""Weights, gradient -> the same weights a little way uphill, for as long as one looks around there."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter


@contextmanager
def uphill(parameters: Iterable[Parameter], rho: float) -> Iterator[None]:
    """Within, weights stand at w + ρ · g / ‖g‖, without gradients; afterwards at w again, bit for bit.

    The gradient that is taken within, applied at w, leads to where not only the loss is low but its neighbourhood too.

    Args:
        parameters: Those with a gradient g are moved; the norm is that of all together.
        rho: Length of the way.

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
