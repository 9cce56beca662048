"""Small models with random weights, one for each kind of architecture, and images for them."""

from collections.abc import Sequence

import numpy as np
import torch

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.store import MemoryStore
from vitreous.model import ModelConfig, build_model
from vitreous.model.change.merge import merge_tokens
from vitreous.model.vit import VisionTransformer
from vitreous.use.explain.sample import Sample
from vitreous.use.predict.predictor import Predictor

SHAPE = {"img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 24, "depth": 2}
VARIANTS = {
    "class token": {},
    "mean": {"pool": "mean"},
    "registers": {"num_registers": 3, "pool": "token_mean"},
    "map": {"pool": "map", "patch_size": 2},
    "sequence": {"pool": "sequence", "stem": "cct"},
    "max": {"pool": "max", "stem": "conv"},
    "distilled": {"distill_token": True},
    "rotary": {"rotary": "axial", "position": "none", "qk_norm": True},
    "mixed": {"rotary": "mixed"},
    "relative": {"relative_bias": True, "position": "none"},
    "no positions": {"position": "none"},
    "waves": {"position": "sincos2d"},
    "locality": {"locality": True, "stem": "shifted"},
    "gate": {"attn_gate": True, "mlp": "gated", "act": "silu", "head_dim": 4},
    "post norm": {"norm_order": "post", "layer_scale": 0.1, "stem": "normed"},
    "one block": {"depth": 1},
    "gray": {"in_chans": 1},
    "13 channels": {"in_chans": 13},
    "2 channels": {"in_chans": 2},
    "one patch": {"img_size": (4, 4)},
    "embed norm": {"embed_norm": True, "fc_norm": True, "final_norm": False},
    "merged": {"patch_size": 2, "merge": 3},
    "merged rotary": {"patch_size": 2, "merge": 2, "rotary": "axial", "pool": "mean"},
}


def make_model(merge: int = 0, **changes: object) -> VisionTransformer:
    """Build a model with noise on every weight, in evaluation mode."""
    config = ModelConfig(**{**SHAPE, "num_heads": 3, **changes})
    model = build_model(config, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    model.eval()
    return merge_tokens(model, merge) if merge else model


def draw_images(model: VisionTransformer, count: int = 3) -> torch.Tensor:
    """Draw normalized images of the size that the model takes."""
    shape = (count, model.config.in_chans, *model.config.img_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def sample_of(model: VisionTransformer, labels: np.ndarray, classes: Sequence[str] = "abcde") -> Sample:
    """Draw one image for each label, or row of truth values."""
    config = model.config
    pixels = (draw_images(model, len(labels)) * 40 + 128).clamp(0, 255).to(torch.uint8)
    chans = config.in_chans
    preprocess = Preprocess(config.img_size, chans, mean=(0.5,) * chans, std=(0.2,) * chans)
    names = tuple(f"{number}.png" for number in range(len(labels)))
    predictor = Predictor(model, preprocess, tuple(classes), 1.0, {})
    return Sample("pictures", len(labels), names, labels, MemoryStore(pixels, torch.from_numpy(labels)), predictor)
