"""Model -> a copy with shuffled weights; maps of both -> how similar they are. Adebayo et al. 2018 (1810.03292)."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive
from vitreous.tensors import PerImage


def with_shuffled_weights(model: VisionTransformer, seed: int = 0) -> VisionTransformer:
    """Return a copy in which the values within each tensor of weights are in random order.

    Source:
        The model parameter randomization test of Adebayo et al. 2018, for all layers at once. They draw new weights.
        Here each tensor keeps its values, because new weights of some models, such as small LayerScale or a head of
        zeros, would make all maps constant.
    """
    changed = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(derive(seed, "shuffled weights"))
    with torch.no_grad():
        for weights in changed.parameters():
            order = torch.randperm(weights.numel(), generator=draw).to(weights.device)
            weights.copy_(weights.flatten()[order].view_as(weights))
    return changed


def rank_correlations(a: Float[Tensor, "batch units"], b: Float[Tensor, "batch units"]) -> PerImage:
    """Return Spearman's rank correlation of the values of each image; 0 if one of them is constant."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(values.cpu().double().numpy(), axis=1)) for values in (a, b)]
    x, y = (values - values.mean(dim=1, keepdim=True) for values in ranks)
    scale = (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()
    return torch.where(scale > 0, (x * y).sum(dim=1) / scale.clamp(min=1e-12), 0.0)
