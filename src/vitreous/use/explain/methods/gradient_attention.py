"""Model, images, target -> relevance of patches: attention weighted by gradients. Chefer et al. 2021 (2103.15679)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vitreous.tensors import Images
from vitreous.use.explain.flow import precise, through_all
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating, trace


def gradient_attention(model: nn.Module, images: Images, target: Target) -> Relevance:
    """Weight the attention of each block by the gradient of the score, and pass relevance on from block to block.

    Returns:
        Values of at least 0.

    Source:
        Chefer et al. 2021, Generic Attention-model Explainability, eq. 5 and 6 (2103.15679): R = R + A R in each block,
        where A is the mean over heads of the positive part of map times gradient. They read the row of the class token.
        Here, the rows of all tokens that the pool reads are averaged, with weights from `pool_weights`; for a pool that
        reads only the class token, the result is theirs. Merged tokens get what equal tokens would get unmerged.
    """
    with evaluating(model) as vit:
        found = trace(vit, images)
        score = target.scores(found.logits).sum()
        token_gradients, *gradients = torch.autograd.grad(score, [found.tokens, *found.maps])
    weights = []
    for maps, gradient, merged in zip(found.maps, gradients, found.merged, strict=False):
        weighted = (precise(maps.detach()) * precise(gradient)).clamp(min=0).mean(dim=1, keepdim=True)
        # The gradient of a merged query is the sum over the tokens that it represents.
        weights.append(weighted if merged is None else weighted / rearrange(merged.sizes, "b m -> b 1 m 1"))
    rows = pool_weights(found.tokens.detach(), token_gradients)[:, None]
    return Relevance(through_all(rows, weights, found))


def pool_weights(
    tokens: Float[Tensor, "batch tokens embed_dim"], gradients: Float[Tensor, "batch tokens embed_dim"]
) -> Float[Tensor, "batch tokens"]:
    """Return how much of the score the pool takes from each token; the weights of an image sum to 1.

    It is the positive part of token times gradient. With a pool that reads the class token, that is 1 for this token;
    with a mean or a maximum, the share of each patch in the logit. If no token has a positive part, the size of its
    gradient counts.
    """
    tokens, gradients = precise(tokens), precise(gradients)
    shares = (tokens * gradients).sum(dim=2).clamp(min=0)
    chosen = torch.where(shares.sum(dim=1, keepdim=True) > 0, shares, gradients.norm(dim=2))
    return chosen / chosen.sum(dim=1, keepdim=True).clamp(min=torch.finfo(chosen.dtype).tiny)
