"""A small model with random weights, and images for it."""

import torch

from vitreous.model import ModelConfig, build_model

SHAPE = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 20, "depth": 2}
IMAGES = torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def make_model(**changes):
    """Build a float64 model in which every parameter is random."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(**SHAPE | changes, num_heads=5)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model
