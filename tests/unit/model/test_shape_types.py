import subprocess
import sys

import pytest

SCRIPT = """
from jaxtyping import install_import_hook

with install_import_hook("vitreous", "beartype.beartype"):
    import vitreous.model as room
    from vitreous.model.build import build_model
    from vitreous.model.change.merge import merge_tokens
    from vitreous.model.taps import taps
    from vitreous.model.parts.tokenizer import patchify

import pytest
import torch

for position in ("learned", "sinusoidal", "none"):
    for pool in ("token", "mean"):
        config = room.ModelConfig(
            img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=20, depth=2, num_heads=5,
            position=position, pool=pool, drop_path_rate=0.5, attn_drop_rate=0.1,
        )
        model = build_model(config)
        model(torch.randn(2, 3, 12, 20)).sum().backward()
        tokens = model.forward_features(torch.randn(2, 3, 12, 20))
        model.encoder.blocks[0].attn.maps(tokens)
        room.resize_model(model, (24, 8))
shape = {"img_size": (12, 20), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 40, "depth": 2}
for changes in (
    {"stem": "conv", "position": "sincos2d", "pool": "map"},
    {"stem": "cct", "pool": "sequence", "relative_bias": True},
    {"stem": "shifted", "pool": "max", "patch_drop_rate": 0.5, "rotary": "axial"},
    {"rotary": "mixed", "num_registers": 3, "pool": "token_mean", "locality": True, "attn_gate": True},
    {"rotary": "dinov3", "key_bias": False, "norm": "rms", "qk_norm": True, "mlp": "gated", "act": "silu"},
    {"patch_norm": True, "num_registers": 2, "pool": "mean", "proj_bias": False, "mlp_bias": False},
    {"distill_token": True, "layer_scale": 0.1, "norm_order": "post", "act": "quick_gelu", "embed_norm": True},
):
    model = build_model(room.ModelConfig(**shape, num_heads=5, **changes))
    model(torch.randn(2, 3, 12, 20)).sum().backward()
    model.eval().forward_intermediates(torch.randn(2, 3, 12, 20), 1)
    merge_tokens(model, 3)(torch.randn(2, 3, 12, 20))
    with taps(model, "encoder.blocks.*.attn.maps"):
        model(torch.randn(2, 3, 12, 20))
    room.resize_model(model, (24, 8))
model = build_model(room.ModelConfig(**shape, num_heads=5, dynamic_img_size=True, rotary="axial")).eval()
model(torch.randn(2, 3, 8, 4))
images = torch.randn(2, 3, 12, 20)
patchify(images, 4)
with pytest.raises(Exception, match="images"):
    model(torch.zeros(2, 3, 12, 20, dtype=torch.int64))
"""


@pytest.mark.slow
def test_shape_types_hold_at_run_time():
    """Models of many kinds run with jaxtyping and beartype checking every annotated tensor."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
