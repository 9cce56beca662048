"""Model, images, target -> relevance of patches: gradient times attention, summed. Hao et al. 2021 (2004.11207)."""

import torch
from torch import nn

from vitreous.tensors import Images
from vitreous.use.explain.flow import copied, precise
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating, trace


def attention_attribution(model: nn.Module, images: Images, target: Target) -> Relevance:
    """Add up by how much the score rises with the attention that each patch gets, over all blocks, heads and queries.

    To first order, that is how much the score would fall if no token attended to the patch. What the pool reads from a
    patch is added, as far as it differs from the mean of the patches.

    Returns:
        Signed values.

    Source:
        Hao et al. 2021, Self-Attention Attribution (2004.11207): attention times its gradient, integrated from
        no attention to the real one. Here, the gradient is taken at the real attention only, so that one backward pass
        suffices, and the values of all queries are added up. The term for the pool is ours: with a mean over the
        patches, the score depends on them without any attention.
    """
    with evaluating(model) as vit:
        found = trace(vit, images)
        score = target.scores(found.logits).sum()
        token_gradients, *gradients = torch.autograd.grad(score, [found.tokens, *found.maps])
    tokens = precise(found.tokens.detach())
    differences = tokens - tokens[:, found.num_prefix_tokens :].mean(dim=1, keepdim=True)
    values = (differences * precise(token_gradients)).sum(dim=2)
    for maps, gradient, merged in zip(found.maps, gradients, found.merged, strict=False):
        of_keys = (precise(maps.detach()) * precise(gradient)).sum(dim=(1, 2))
        # Tokens that were merged share the value of their key equally.
        values = values + copied(of_keys if merged is None else of_keys / merged.sizes, merged)
    return Relevance(found.patches(values))
