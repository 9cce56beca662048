"""Small models of every architecture with random weights, and their logits without some patches, computed by hand."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from vitreous.model import ModelConfig, build_model
from vitreous.model.change.lora import add_lora
from vitreous.model.change.merge import merge_tokens
from vitreous.model.vit import VisionTransformer

PLAIN = ModelConfig(
    img_size=(8, 12), patch_size=4, in_chans=2, num_classes=5, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2.0
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"num_registers": 2, "prefix_position": "all"},
    "distilled": {"distill_token": True},
    "mean": {"pool": "mean"},
    "mean with class token": {"pool": "mean", "class_token": True},
    "max": {"pool": "max", "num_registers": 1},
    "token_mean": {"pool": "token_mean"},
    "map": {"pool": "map", "fc_norm": True},
    "sequence": {"pool": "sequence"},
    "axial": {"rotary": "axial", "position": "none"},
    "mixed": {"rotary": "mixed", "pool": "mean"},
    "dinov3": {"rotary": "dinov3", "key_bias": False, "num_registers": 1},
    "relative bias": {"relative_bias": True},
    "relative bias, mean": {"relative_bias": True, "pool": "mean", "position": "sincos2d"},
    "locality": {"locality": True},
    "locality, mean": {"locality": True, "pool": "mean", "relative_bias": True},
    "gates and norms": {"attn_gate": True, "mlp": "gated", "norm": "rms", "qk_norm": True, "patch_norm": True},
    "post norm": {"norm_order": "post", "layer_scale": 0.3, "embed_norm": True, "final_norm": False},
    "one block": {"depth": 1, "head_dim": 4},
    "normed stem": {"stem": "normed"},
    "merging": {"merged": 1},
    "merging, mean": {"merged": 2, "pool": "mean", "relative_bias": True, "locality": True},
    "lora": {"lora": 2},
}
SEEING_NEIGHBORS: dict[str, dict[str, Any]] = {
    "conv": {"stem": "conv"},
    "cct": {"stem": "cct", "pool": "sequence"},
    "shifted": {"stem": "shifted", "locality": True},
}


def make_model(merged: int = 0, lora: int = 0, **changes: Any) -> VisionTransformer:
    """Build a float64 model in evaluation mode in which every weight is random."""
    model = build_model(dataclasses.replace(PLAIN, **changes), generator=torch.Generator().manual_seed(0)).double()
    if lora:
        add_lora(model, rank=lora, alpha=4.0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    model.eval()
    return merge_tokens(model, merged) if merged else model


def draw_images(batch: int = 2, size: tuple[int, int] = PLAIN.img_size, seed: int = 2) -> Tensor:
    """Return random float64 images."""
    return torch.randn(batch, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits_of(model: VisionTransformer, image: Tensor, kept: list[int]) -> Tensor:
    """Return the logits of an image, `[1, channels, height, width]`, with some of its patches, by plain indexing.

    `kept` are numbers of patches, at least one.
    """
    if model.config.stem in ("conv", "cct", "shifted"):
        image, (_, columns), side = image.clone(), model.config.grid_size, model.config.patch_size
        for number in set(range(model.config.num_patches)) - set(kept):
            top, left = number // columns * side, number % columns * side
            image[:, :, top : top + side, left : left + side] = 0
    tokens, relations = model.embed(image)
    count = model.num_prefix_tokens
    places = [*range(count), *(count + number for number in kept)]
    if relations is not None:
        relations = [
            type(relation)(
                None if relation.cos is None else relation.cos[:, :, places],
                None if relation.sin is None else relation.sin[:, :, places],
                None if relation.bias is None else relation.bias[:, :, places][:, :, :, places],
            )
            for relation in relations
        ]
    return model.forward_head(model.encoder(tokens[:, places], relations))[0]
