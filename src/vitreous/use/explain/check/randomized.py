"""Model -> a copy with shuffled weights, whose maps should be different. Adebayo et al. 2018 (1810.03292)."""

import copy

import torch

from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive


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
