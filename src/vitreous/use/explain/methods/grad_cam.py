"""Model, images, target -> channels weighted by the mean gradient of the score. Grad-CAM, Selvaraju et al. 2017."""

import torch
from torch import nn

from vitreous.model.parts.pool import ClassTokenPool, TokenMeanPool
from vitreous.tensors import Images
from vitreous.use.explain.flow import copied, precise
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating, trace


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
