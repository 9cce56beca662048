"""Model, images -> attention multiplied over all blocks: attention rollout. Abnar and Zuidema 2020 (2005.00928)."""

import torch
from torch import nn

from vitreous.tensors import Images
from vitreous.use.explain.flow import precise, read_rows, through_all
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating, trace


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
