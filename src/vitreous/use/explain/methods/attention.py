"""Model, images -> attention, whatever the class: that of a layer, or multiplied over all blocks."""

import torch
from torch import nn

from vitreous.errors import ConfigError
from vitreous.tensors import Images
from vitreous.use.explain.flow import precise, read_rows, through_all, through_block
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating, trace


def attention(
    model: nn.Module, images: Images, target: Target, *, layer: int = -1, head: int | None = None
) -> Relevance:
    """Return the attention of one layer: the row of the class token, or the mean row of the tokens that the pool reads.

    It shows what the layer looks at, whatever the class, and not what it makes of it. `layer` and `head` are numbers
    from 0, or negative from the last one; None is the mean over heads. The model may have no head for classes, and the
    target is not used.

    Returns:
        Values of at least 0. With those of the prefix tokens, which are left out, they sum to 1.

    Raises:
        ConfigError: There is no such layer or head.
    """
    with evaluating(model, needs_head=False) as vit, torch.no_grad():
        found = trace(vit, images)
        block, rows = _checked("layer", layer, len(found.maps)), read_rows(vit, found)
    by_head = through_block(rows, found.maps[block], found.merged[block])
    chosen = by_head.mean(dim=1) if head is None else by_head[:, _checked("head", head, by_head.shape[1])]
    return Relevance(found.patches(chosen))


def rollout(model: nn.Module, images: Images, target: Target) -> Relevance:
    """Multiply the attention of all blocks, as if each block passed on half attention and half input.

    It is a baseline: it ignores the class, the sign and size of values, and LayerScale, which decides how much a block
    really passes on.

    Returns:
        Values of at least 0. With those of the prefix tokens, which are left out, they sum to 1.

    Source:
        Abnar and Zuidema 2020, section 3 (2005.00928): A = 0.5 W + 0.5 I, where W is the mean map over heads, and the
        product of all A. They read the row of the class token. Here, the rows of all tokens that the pool reads are
        averaged.
    """
    with evaluating(model, needs_head=False) as vit, torch.no_grad():
        found = trace(vit, images)
    means = [precise(maps).mean(dim=1, keepdim=True) for maps in found.maps]
    weights = [mean / mean.sum(dim=-1, keepdim=True) for mean in means]  # rows of bf16 maps do not quite sum to 1
    values = through_all(read_rows(vit, found), weights, found)
    return Relevance(values / 2 ** len(weights))  # a product of (I + W) / 2


def _checked(name: str, number: int, count: int) -> int:
    if not -count <= number < count:
        raise ConfigError(f"{name}={number}: does not exist; use 0 to {count - 1}, or {-count} to -1 from the last")
    return number % count
