"""Matrices of a model -> whole numbers of 8 bits, with a scale for each row."""

import copy

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from vitreous.model.vit import VisionTransformer

MATRICES = (nn.Linear, nn.Conv2d)
"""Modules whose weights are rounded. Norms, biases, positions and tokens are small and stay float32."""
_LARGEST = 127


def to_int8(weight: Tensor) -> tuple[Int8[Tensor, "rows columns"], Float[Tensor, " rows"]]:
    """Return whole numbers from -127 to 127 and what those of each row are multiplied by.

    Of the weight, `[rows, ...]`, all dimensions but the first are flattened. The largest value of a row becomes 127.
    """
    rows = weight.detach().float().cpu().flatten(1)
    scales = rows.abs().amax(dim=1) / _LARGEST
    divisors = scales.where(scales > 0, 1.0)  # a row of zeros
    return (rows / divisors[:, None]).round().to(torch.int8), scales


def with_int8_weights(model: VisionTransformer) -> VisionTransformer:
    """Return a copy of a model, float32 on the CPU, whose matrices have the values that `to_int8` keeps."""
    rounded = copy.deepcopy(model).float().cpu()
    with torch.no_grad():
        for module in rounded.modules():
            if isinstance(module, MATRICES):
                values, scales = to_int8(module.weight)
                module.weight.copy_((values * scales[:, None]).view_as(module.weight))
    return rounded
