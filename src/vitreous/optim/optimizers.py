"""Model, OptimConfig -> optimiser."""

import torch
from torch import nn

from vitreous.optim.config import OptimConfig
from vitreous.optim.param_groups import split_by_decay


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with decoupled decay on matrices only, fused into one pass over the parameters.

    The learning rate is set before each step by whoever drives the optimiser; see `schedule`.

    Source: Loshchilov & Hutter 2019 (1711.05101), in PyTorch's form: the decay is `lr · weight_decay`.
    """
    decayed, not_decayed = split_by_decay(model)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": not_decayed, "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.lr, betas=betas, fused=True)
