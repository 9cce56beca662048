"""Model, images, target -> gradients along the way from the mean color to the image. Sundararajan et al. 2017."""

import torch
from numpy.polynomial.legendre import leggauss
from torch import nn

from vitreous.errors import ConfigError
from vitreous.tensors import Images
from vitreous.use.explain.flow import precise
from vitreous.use.explain.relevance import Relevance, summed_by_token
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating


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
