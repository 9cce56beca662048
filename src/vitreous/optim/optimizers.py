"""Model, OptimConfig -> optimizer."""

import torch
from torch import nn

from vitreous.optim.adafactor import Adafactor
from vitreous.optim.config import OptimConfig
from vitreous.optim.lamb import Lamb
from vitreous.optim.lion import Lion
from vitreous.optim.muon import MuonAdamW
from vitreous.optim.param_groups import hidden_matrices, param_groups
from vitreous.optim.schedule_free import ScheduleFree


def build_optimizer(model: nn.Module, config: OptimConfig, precision: str = "fp32") -> torch.optim.Optimizer:
    """Build the optimizer of `config.name`, with decoupled weight decay `lr · weight_decay` on matrices only.

    The caller sets the learning rate of each parameter group before each step: its `lr_ratio` times the value that
    `schedule` gives. With the precision `bf16`, Muon multiplies matrices in bfloat16.

    Raises:
        ConfigError: Muon is chosen, but no weight matrix of the encoder is trained.

    Source: AdamW (Loshchilov & Hutter 2019, 1711.05101) is PyTorch's fused one; the other optimizers give their sources
    themselves.
    """
    groups = param_groups(model, weight_decay=config.weight_decay, layer_decay=config.layer_decay)
    lr, betas = config.lr, (config.beta1, config.beta2)
    match config.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
        case "lion":
            return Lion(groups, lr=lr, betas=betas)
        case "lamb":
            return Lamb(groups, lr=lr, betas=betas)
        case "adafactor":
            return Adafactor(groups, lr=lr, betas=betas)
        case "muon":
            dtype = torch.bfloat16 if precision == "bf16" else None
            return MuonAdamW(groups, hidden_matrices(model), lr=lr, betas=betas, dtype=dtype)
        case "schedule_free":
            return ScheduleFree(groups, lr=lr, betas=betas)
