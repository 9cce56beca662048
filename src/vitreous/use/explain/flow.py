"""Weights between the tokens of each block -> how much of what the pool reads comes from each patch."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vitreous.model.change.merge import Merged, unmerge
from vitreous.model.parts.pool import ClassTokenPool, TokenMeanPool
from vitreous.model.vit import VisionTransformer
from vitreous.use.explain.relevance import PatchValues
from vitreous.use.explain.trace import Trace

Rows = Float[Tensor, "batch #heads tokens"]
"""A weight for each token; 1 instead of the number of heads if all heads share them."""

Weights = Float[Tensor, "batch #heads queries keys"]
"""Weights between the tokens that enter a block."""


def read_rows(model: VisionTransformer, found: Trace) -> Rows:
    """Return how much the pool reads each token, without regard to what is in it; the weights of an image sum to 1.

    A pool that reads the class token and the mean of the patches counts both equally.
    """
    rows = torch.zeros_like(precise(found.tokens[:, :, 0]))
    if isinstance(model.pool, ClassTokenPool):
        rows[:, : model.pool.num_read] = 1 / model.pool.num_read
    else:
        num_patches = rows.shape[1] - found.num_prefix_tokens
        rows[:, found.num_prefix_tokens :] = 1 / num_patches
        if isinstance(model.pool, TokenMeanPool):
            rows /= 2
            rows[:, 0] = 1 / 2
    return rows[:, None]


def through_block(rows: Rows, weights: Weights, merged: Merged | None) -> Rows:
    """Return rows @ weights: how much of the tokens that leave a block comes from each token that enters it.

    Rows are for all tokens, weights between those that enter the block. Tokens that have merged share the weight of
    their key equally, and each has the weights of their query.
    """
    rows, weights = rows.to(torch.promote_types(rows.dtype, weights.dtype)), precise(weights)
    with torch.autocast(rows.device.type, enabled=False):
        if merged is None:
            return (rows[:, :, None] @ weights)[:, :, 0]
        source = rearrange(merged.source, "b n -> b 1 n")
        empty = rows.new_zeros(*rows.shape[:2], weights.shape[2])
        collected = empty.scatter_add(2, source.expand(-1, rows.shape[1], -1), rows)
        taken = (collected[:, :, None] @ weights)[:, :, 0] / rearrange(merged.sizes, "b m -> b 1 m")
        return taken.gather(2, source.expand(-1, taken.shape[1], -1))


def through_all(rows: Rows, weights: Sequence[Tensor], found: Trace) -> PatchValues:
    """Return how much of the tokens that leave the encoder comes from each patch: rows times all (1 + weights).

    The 1 is for residual connections. Multiplying from the last block to the first keeps a row for each image instead
    of a matrix.
    """
    for block in reversed(range(len(weights))):
        rows = rows + through_block(rows, weights[block], found.merged[block])
    return found.patches(rows[:, 0])


def copied(values: Float[Tensor, "batch merged"], merged: Merged | None) -> Float[Tensor, "batch tokens"]:
    """Return, for each token, the value of the token that it was merged into."""
    return unmerge(values[:, :, None], merged)[:, :, 0]


def precise(values: Tensor) -> Tensor:
    """Return the values in float32, or float64 if that is what they are in."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
