"""Model, images, target -> sensitivity of the score to attention. LeGrad, Bousselham et al. 2025 (2404.03214)."""

import torch
from torch import nn

from vitreous.errors import ConfigError
from vitreous.model.change.merge import unmerge
from vitreous.tensors import Images
from vitreous.use.explain.flow import copied, precise
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating, trace
from vitreous.wording import plural


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
