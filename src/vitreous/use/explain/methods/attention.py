"""Model, images -> how much the tokens that the pool reads attend to each patch."""

import torch
from torch import nn

from vitreous.errors import ConfigError
from vitreous.tensors import Images
from vitreous.use.explain.flow import read_rows, through_block
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


def _checked(name: str, number: int, count: int) -> int:
    if not -count <= number < count:
        raise ConfigError(f"{name}={number}: does not exist; use 0 to {count - 1}, or {-count} to -1 from the last")
    return number % count
