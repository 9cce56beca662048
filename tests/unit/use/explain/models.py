"""Tiny models of every kind that explanations must work for, with random weights, and images for them."""

import torch

from vitreous.model import ModelConfig, build_model
from vitreous.model.change.lora import LowRank, add_lora
from vitreous.model.change.merge import merge_tokens
from vitreous.model.change.trim import trim_last_block

SHAPE = {"img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 24, "depth": 2}
GRID = (2, 3)
KINDS = {
    "token": {},
    "mean": {"pool": "mean"},
    "max": {"pool": "max"},
    "map": {"pool": "map"},
    "sequence": {"pool": "sequence"},
    "token_mean": {"pool": "token_mean"},
    "registers": {"num_registers": 3},
    "mean with registers": {"pool": "mean", "num_registers": 2, "class_token": True},
    "distill": {"distill_token": True},
    "layer_scale": {"layer_scale": 0.1},
    "qk_norm": {"qk_norm": True},
    "axial": {"rotary": "axial", "position": "none"},
    "mixed": {"rotary": "mixed"},
    "dinov3": {"rotary": "dinov3", "num_registers": 4, "key_bias": False},
    "relative_bias": {"relative_bias": True, "num_registers": 1},
    "locality": {"locality": True},
    "attn_gate": {"attn_gate": True},
    "gated": {"mlp": "gated", "act": "silu", "norm": "rms"},
    "post_norm": {"norm_order": "post", "layer_scale": 0.5},
    "fc_norm": {"pool": "mean", "fc_norm": True, "final_norm": False},
    "token with fc_norm": {"fc_norm": True, "final_norm": False},
    "embed_norm": {"embed_norm": True, "head_dim": 4},
    "one block": {"depth": 1},
    "one block, mean": {"depth": 1, "pool": "mean"},
    "one class": {"num_classes": 1},
    "conv": {"stem": "conv"},
    "cct": {"stem": "cct", "pool": "sequence"},
    "shifted": {"stem": "shifted"},
    "dynamic": {"dynamic_img_size": True, "img_size": (12, 12), "position": "sincos2d"},
    "merged": {},
    "merged with relative_bias": {"relative_bias": True, "pool": "token_mean"},
    "merged, rotary, mean": {"rotary": "mixed", "pool": "mean", "num_registers": 1},
    "lora": {"layer_scale": 0.5},
    "frozen": {"pool": "mean"},
    "trimmed": {},
    "explicit": {},
    "sdpa": {"locality": True, "relative_bias": True},
    "bf16": {"rotary": "axial"},
    "autocast": {"pool": "token_mean"},
}


def make_model(kind="token", dtype=torch.float32, **changes):
    """Build a model in evaluation mode in which every parameter is random."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(**{"num_heads": 3, **SHAPE, **KINDS[kind], **changes})).eval()
    if kind == "lora":
        add_lora(model, rank=2, alpha=2.0)
        assert any(isinstance(module, LowRank) for module in model.modules())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    if kind.startswith("merged"):
        model = merge_tokens(model, [2, 1])
    if kind == "trimmed":
        model = trim_last_block(model)
    if kind == "frozen":
        model.requires_grad_(False)
    if kind in ("explicit", "sdpa"):
        model.set_attention_kernel(kind)
    return model.to(torch.bfloat16 if kind == "bf16" else dtype)


def draw_images(count=3, dtype=torch.float32, size=(8, 12)):
    """Draw normalized images."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *size, generator=generator, dtype=torch.float64).to(dtype)
