"""Tokens' places -> what attention takes beside tokens: angles, offsets on the scores, who may see whom."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Rotation = Float[Tensor, "batches heads tokens head_dim"]
"""Cosines or sines, one row per token; 1 for `batches` or `heads` where all have the same."""

Bias = Float[Tensor, "batches heads queries keys"]
"""Added to the attention scores before the softmax; minus infinity where a query must not see a key."""

Sizes = Float[Tensor, "batch tokens"]
"""How many tokens of the incoming sequence each token stands for."""


class Relation(NamedTuple):
    """What one block's attention takes beside its tokens; None where there is nothing of the kind.

    Attributes:
        cos: Cosines of the angles that queries and keys are turned by.
        sin: Sines of the same.
        bias: Added to the scores.
        sizes: How many tokens each token stands for, where some were merged; all are seen.
        num_queries: How many tokens look, from the first; all are looked at. None: all look.
    """

    cos: Rotation | None = None
    sin: Rotation | None = None
    bias: Bias | None = None
    sizes: Sizes | None = None
    num_queries: int | None = None


def rotate(heads: Tensor, relation: Relation) -> Tensor:
    """Turn each pair (i, i + head_dim/2) of every head by its token's angle.

    Args:
        heads: Queries or keys, `[batch, heads, tokens, head_dim]`.
        relation: With angles.

    Returns:
        The same shape and dtype.
    """
    if relation.cos is None or relation.sin is None:
        return heads
    first, second = heads.chunk(2, dim=-1)
    return (heads * relation.cos + torch.cat([-second, first], dim=-1) * relation.sin).to(heads.dtype)


def as_rotation(angles: Float[Tensor, "batches heads patches half"], num_prefix_tokens: int) -> Relation:
    """Angles of patches -> a relation over the whole sequence, in which prefix tokens are not turned."""
    padded = F.pad(torch.cat([angles, angles], dim=-1), (0, 0, num_prefix_tokens, 0))
    return Relation(cos=padded.cos(), sin=padded.sin())


def select(relation: Relation, kept: Tensor) -> Relation:
    """The relation of the tokens that are left when others were dropped.

    Args:
        relation: Of the whole sequence, the same for all images.
        kept: `[batch, kept]`, numbers of tokens in the sequence, prefix tokens too.
    """
    rows = rearrange(kept, "b n -> b 1 n 1")
    cos, sin, bias = relation.cos, relation.sin, relation.bias
    if cos is not None and sin is not None:
        shape = (kept.shape[0], cos.shape[1], -1, cos.shape[3])
        across = rows.expand(-1, cos.shape[1], -1, cos.shape[3])
        cos, sin = (table.expand(*shape).gather(2, across) for table in (cos, sin))
    if bias is not None:
        num_heads, num_keys = bias.shape[1], bias.shape[3]
        bias = bias.expand(kept.shape[0], -1, -1, -1).gather(2, rows.expand(-1, num_heads, -1, num_keys))
        columns = rearrange(kept, "b n -> b 1 1 n")
        bias = bias.gather(3, columns.expand(-1, num_heads, kept.shape[1], -1))
    return relation._replace(cos=cos, sin=sin, bias=bias)


def of_images(relation: Relation, kept: Tensor) -> Relation:
    """The relation of some images of a batch.

    Args:
        relation: Of the whole batch; what is the same for all its images stays as it is.
        kept: `[kept]`, numbers of images in the batch.
    """
    tables = (relation.cos, relation.sin, relation.bias, relation.sizes)
    cos, sin, bias, sizes = (
        table if table is None or len(table) == 1 else table.index_select(0, kept) for table in tables
    )
    return relation._replace(cos=cos, sin=sin, bias=bias, sizes=sizes)
