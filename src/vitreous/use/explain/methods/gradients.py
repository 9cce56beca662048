"""Model, images, target -> relevance of patches by gradients of the score: of attention, of tokens, or of pixels."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model.change.merge import unmerge
from vitreous.model.parts.pool import ClassTokenPool, TokenMeanPool
from vitreous.tensors import Images
from vitreous.use.explain.flow import copied, precise, through_all
from vitreous.use.explain.relevance import Relevance, summed_by_token
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import Trace, evaluating, trace
from vitreous.wording import plural


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
    found, token_gradients, gradients = _differentiated(model, images, target)
    tokens = precise(found.tokens.detach())
    differences = tokens - tokens[:, found.num_prefix_tokens :].mean(dim=1, keepdim=True)
    values = (differences * precise(token_gradients)).sum(dim=2)
    for maps, gradient, merged in zip(found.maps, gradients, found.merged, strict=False):
        of_keys = (precise(maps.detach()) * precise(gradient)).sum(dim=(1, 2))
        # Tokens that were merged share the value of their key equally.
        values = values + copied(of_keys if merged is None else of_keys / merged.sizes, merged)
    return Relevance(found.patches(values))


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
    found, token_gradients, gradients = _differentiated(model, images, target)
    weights = []
    for maps, gradient, merged in zip(found.maps, gradients, found.merged, strict=False):
        weighted = (precise(maps.detach()) * precise(gradient)).clamp(min=0).mean(dim=1, keepdim=True)
        # The gradient of a merged query is the sum over the tokens that it represents.
        weights.append(weighted if merged is None else weighted / rearrange(merged.sizes, "b m -> b 1 m 1"))
    rows = pool_weights(found.tokens.detach(), token_gradients)[:, None]
    return Relevance(through_all(rows, weights, found))


def legrad(model: nn.Module, images: Images, target: Target, *, num_layers: int | None = None) -> Relevance:
    """Return how much the score of a layer's tokens would rise with more attention to a patch, summed over layers.

    The score of a layer is what final norm, pool and head make of the tokens that leave it. The last `num_layers`
    layers count; None for all.

    Returns:
        Values of at least 0.

    Raises:
        ConfigError: The model has fewer layers, or the number is below 1.

    Source:
        Bousselham et al. 2025, section 3 (2404.03214): the gradient of each layer's score with respect to its own map;
        positive part, mean over heads and queries, sum over layers. Their code scores the mean over all tokens; here
        the pool of the model reads the tokens of each layer. It takes the last two layers by default. All layers agree
        far better with the removal of patches on a model for MNIST (3.6 logits instead of 0.7), and no better on a
        fine-tuned ViT-S (2.7 and 3.5, each ± 0.5; `benchmarks/legrad_layers.py`). Their values are scaled to [0, 1];
        these are not.
    """
    with evaluating(model) as vit:
        found = trace(vit, images)
        target, depth = target.fixed(found.logits), len(found.maps)
        count = depth if num_layers is None else num_layers
        if not 1 <= count <= depth:
            raise ConfigError(f"num_layers={count}: the model has {plural(depth, 'layer')}; use 1 to {depth}, or None")
        total = torch.zeros((), device=images.device)
        for block in range(depth - count, depth):
            after, merged = found.states[block + 1], found.merged[block + 1]
            score = target.scores(vit.forward_head(unmerge(vit.encoder.norm(after), merged)).float()).sum()
            # The maps are inside this block, so the gradient goes no further back.
            (gradient,) = torch.autograd.grad(score, found.maps[block], retain_graph=True)
            # A merged query has the summed gradient of its tokens, and each token of a merged key has its gradient.
            by_key = precise(gradient).clamp(min=0).mean(dim=1).sum(dim=1) / found.tokens.shape[1]
            total = total + copied(by_key, found.merged[block])
    return Relevance(found.patches(total))


def grad_cam(model: nn.Module, images: Images, target: Target) -> Relevance:
    """Weight each channel of the patch tokens by the mean gradient of the score, and sum the channels.

    If the pool reads the class token, the tokens are those that the last attention reads: later ones have no influence
    on this token any more. If it reads the patches, they are those that leave the last block, before the final norm. If
    it reads both, they are those that enter the last block, on which both depend.

    Returns:
        Values of at least 0.

    Source:
        Selvaraju et al. 2017, eq. 1 and 2 (1610.02391), with tokens in place of a convolutional map, and without prefix
        tokens. For the class token, this is the layer that pytorch-grad-cam recommends, the output of `norm1` of the
        last block. It also scales the values to [0, 1] and enlarges them, which these are not.
    """
    with evaluating(model) as vit:
        found = trace(vit, images)
        state = -2 if isinstance(vit.pool, ClassTokenPool | TokenMeanPool) else -1
        tokens = found.attended if isinstance(vit.pool, ClassTokenPool) else found.states[state]
        (gradient,) = torch.autograd.grad(target.scores(found.logits).sum(), tokens)
    rows, columns = found.grid_size
    # The gradient of a merged token is the sum over the patches that it represents.
    channels = precise(gradient)[:, found.num_prefix_tokens :].sum(dim=1, keepdim=True) / (rows * columns)
    values = (precise(tokens.detach()) * channels).sum(dim=2).clamp(min=0)
    return Relevance(found.patches(copied(values, found.merged[state])))


def integrated_gradients(model: nn.Module, images: Images, target: Target, *, steps: int = 32) -> Relevance:
    """Return how much of the change of the score, from a plain image to this one, each patch accounts for.

    The plain image has the mean color of the training images, 0 after normalization. So patches of this color get 0.
    Each of the `steps` images on the way takes a forward and a backward pass of the whole batch.

    Returns:
        Values that sum to the change of the score, up to the error of the sum over steps. `gaps` is this error.

    Raises:
        ConfigError: There is no step.

    Source:
        Sundararajan et al. 2017, eq. 1 (1703.01365), by Gauss-Legendre quadrature as in Captum, whose default is 50
        steps. Values are summed over channels, and over the pixels of each patch. If the stem overlaps patches, a pixel
        counts for the token with the nearest center.
    """
    if steps < 1:
        raise ConfigError(f"steps={steps}: must be at least 1; 32 is usual")
    with evaluating(model) as vit:
        images = images.detach()
        with torch.no_grad():
            logits = vit(images).float()
            target = target.fixed(logits)
            change = target.scores(logits) - target.scores(vit(torch.zeros_like(images)).float())
        total = torch.zeros_like(precise(images))
        for node, weight in zip(*leggauss(steps), strict=True):  # on the interval from -1 to 1
            point = (images * float((1 + node) / 2)).requires_grad_()
            (gradient,) = torch.autograd.grad(target.scores(vit(point).float()).sum(), point)
            total += float(weight / 2) * gradient
    values = summed_by_token(vit.tokenizer, images * total)
    missed = (values.sum(dim=(1, 2)) - change).abs()
    return Relevance(values.float(), gaps=(missed / change.abs()).nan_to_num(nan=0.0).float())  # 0 of 0 is no gap


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


def _differentiated(
    model: nn.Module, images: Images, target: Target
) -> tuple[Trace, Float[Tensor, "batch tokens embed_dim"], Sequence[Tensor]]:
    """Return a forward pass, and the gradients of the score for the tokens that the pool reads and for each map."""
    with evaluating(model) as vit:
        found = trace(vit, images)
        score = target.scores(found.logits).sum()
        token_gradients, *gradients = torch.autograd.grad(score, [found.tokens, *found.maps])
    return found, token_gradients, gradients
