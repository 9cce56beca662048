"""Positions of tokens -> what attention takes in addition to tokens: rotations and a bias on the attention scores."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Rotation = Float[Tensor, "batches heads tokens head_dim"]
"""Cosines or sines, one row per token; `batches` or `heads` is 1 if all images or heads share them."""

Bias = Float[Tensor, "#batch #heads #queries keys"]
"""Added to the attention scores before the softmax; minus infinity hides a key. Sizes of 1 are broadcast."""


class Relation(NamedTuple):
    """Inputs of the attention of one block that depend on the positions of tokens.

    Queries and keys are rotated by angles with these cosines and sines; None for no rotation. The bias is added to the
    attention scores; None for no bias.
    """

    cos: Rotation | None = None
    sin: Rotation | None = None
    bias: Bias | None = None


NO_RELATION = Relation()


def rotate(heads: Tensor, relation: Relation) -> Tensor:
    """Rotate each pair (i, i + head_dim/2) of every head by the angle of its token.

    Heads are queries or keys. Without cosines and sines in the relation, they are returned unchanged.
    """
    if relation.cos is None or relation.sin is None:
        return heads
    first, second = heads.chunk(2, dim=-1)
    return (heads * relation.cos + torch.cat([-second, first], dim=-1) * relation.sin).to(heads.dtype)


def as_rotation(angles: Float[Tensor, "batches heads patches half"], num_prefix_tokens: int) -> Relation:
    """Return the relation that rotates patches by these angles and leaves prefix tokens unchanged.

    There is one angle for each pair of channels, in radians.
    """
    padded = F.pad(torch.cat([angles, angles], dim=-1), (0, 0, num_prefix_tokens, 0))
    return Relation(cos=padded.cos(), sin=padded.sin())


def select(relation: Relation, kept: Tensor) -> Relation:
    """Return the relation of the tokens that each image keeps.

    The relation is the same for all images; the numbers of kept tokens, `[batch, kept]`, include prefix tokens.
    """
    rows = rearrange(kept, "b n -> b 1 n 1")
    cos, sin, bias = relation
    if cos is not None and sin is not None:
        shape = (kept.shape[0], cos.shape[1], -1, cos.shape[3])
        across = rows.expand(-1, cos.shape[1], -1, cos.shape[3])
        cos, sin = (table.expand(*shape).gather(2, across) for table in (cos, sin))
    if bias is not None:
        num_heads, num_keys = bias.shape[1], bias.shape[3]
        bias = bias.expand(kept.shape[0], -1, -1, -1).gather(2, rows.expand(-1, num_heads, -1, num_keys))
        columns = rearrange(kept, "b n -> b 1 1 n")
        bias = bias.gather(3, columns.expand(-1, num_heads, kept.shape[1], -1))
    return Relation(cos, sin, bias)


def of_images(relation: Relation, kept: Tensor) -> Relation:
    """Return the relation of some images of a batch.

    `kept` has the numbers of the images in the batch. Tables that all images share are returned unchanged.
    """
    return Relation(*(table if table is None or len(table) == 1 else table.index_select(0, kept) for table in relation))


def first_blocks(parameter: nn.Parameter, depth: int) -> nn.Parameter:
    """Return the rows of the first `depth` blocks; frozen ones stay frozen."""
    return nn.Parameter(parameter[:depth].detach(), requires_grad=parameter.requires_grad)
