"""Published model names, spelled as in timm -> fields in which each model differs from the standard ViT of its size.

Each row has names and changes. `{a,b}` means a or b, as in a shell. `presets` reads sizes of models, patches and images
from the name; a change takes precedence over the name.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

Changes = dict[str, Any]

_HEADLESS: Changes = {"num_classes": 0}
_CLASSLESS_MEAN: Changes = {"pool": "mean"}
_MEAN: Changes = {"pool": "mean", "final_norm": False, "fc_norm": True}
_MAP: Changes = {"pool": "map"}
_UNPLACED: Changes = {"prefix_position": "none"}
_PLACED: Changes = {"prefix_position": "all"}
_ONE: Changes = {"num_registers": 1}
_FOUR: Changes = {"num_registers": 4}
_SCALED: Changes = {"layer_scale": 1e-5}
_TANH: Changes = {"act": "gelu_tanh"}
_SWIGLU: Changes = {"mlp": "gated", "act": "silu"}
_KEYLESS: Changes = {"qkv_bias": True, "key_bias": False}

_SIGLIP = _MAP | _HEADLESS
_SIGLIP_MEAN = _CLASSLESS_MEAN | _HEADLESS
_CLIP: Changes = {"embed_norm": True, "patch_bias": False, "norm_eps": 1e-5}
_QUICK = _CLIP | {"act": "quick_gelu"}
_PLUS: Changes = {"embed_dim": 896, "num_heads": 14}
_REGISTERED = _MEAN | _UNPLACED | _SCALED

# DeiT III as in its own code. In timm, LayerScale starts at 1e-6 and the drop path rate rises with depth.
_DEIT3: Changes = _UNPLACED | {"layer_scale": 1e-4, "drop_path_schedule": "constant", "init": "deit3"}

_DINOV2 = _SCALED | _HEADLESS | {"img_size": 518}
_TIPS2 = _ONE | _UNPLACED | _HEADLESS | {"layer_scale": 1.0, "img_size": 448}
_GIANT2: Changes = _SWIGLU | {"embed_dim": 1536, "num_heads": 24, "mlp_ratio": 8 / 3}
_RADIO: Changes = _UNPLACED | _HEADLESS | {"num_registers": 7, "final_norm": False, "img_size": 512}

_ROTARY: Changes = _SCALED | {"position": "none", "rotary": "axial"}
_MIXED: Changes = _ROTARY | {"rotary": "mixed", "rotary_theta": 10.0}
_PLACED_TOO: Changes = _UNPLACED | {"position": "learned"}
# timm's combination of registers, mean pooling and rotary embedding, with the wavelengths of language models.
_ROTARY_MEAN: Changes = _ROTARY | _MEAN | _KEYLESS | {"rotary_theta": 10_000.0}
_DINOV3: Changes = (
    _ROTARY
    | _FOUR
    | _HEADLESS
    | {"rotary": "dinov3", "pool": "mean", "class_token": True, "qkv_bias": False, "norm_eps": 1e-5}
    | {"img_size": 256, "dynamic_img_size": True}
)
_LINGBOT = _DINOV3 | {"pool": "token"}
_EVA: Changes = _MEAN | {"class_token": True}
_AIM2: Changes = (
    _HEADLESS
    | _SWIGLU
    | {"pool": "mean", "patch_norm": True, "norm": "rms", "norm_eps": 1e-5, "depth": 24}
    | {"qkv_bias": False, "proj_bias": False, "mlp_bias": False}
)
_TEST: Changes = {"mlp_ratio": 3.0, "patch_size": 16, "img_size": 160, "dynamic_img_size": True}
_TEST_MEAN = _TEST | _MEAN | _PLACED | _ONE | _SCALED

ROWS: tuple[tuple[str, Changes], ...] = (
    # ViT: 2010.11929, 2106.10270, 2106.04560; DeiT's small and tiny.
    ("vit_{tiny,small,base,large}_patch16_{224,384} vit_{small,base,large}_patch32_{224,384}", {}),
    ("vit_{small,base}_patch8_224 vit_{large,huge,giant,gigantic}_patch14_224", {}),
    ("vit_base_patch16_224_miil", {"qkv_bias": False, "num_classes": 11_221}),
    # Mean pooling instead of a class token: 2205.01580; I-JEPA 2301.08243; FlexiViT 2212.08013.
    ("vit_base_patch16_gap_224", _CLASSLESS_MEAN | {"num_heads": 16}),
    ("vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_giant_patch16_gap_224", _SIGLIP_MEAN),
    (
        "vit_medium_patch16_gap_{256,384} vit_betwixt_patch16_gap_256",
        _CLASSLESS_MEAN | {"qkv_bias": False, "layer_scale": 1e-6},
    ),
    (
        "vit_medium_patch16_gap_240",
        _CLASSLESS_MEAN | {"qkv_bias": False, "layer_scale": 1e-6, "num_classes": 11_821},
    ),
    ("flexivit_{small,base,large}", _UNPLACED | {"patch_size": 16, "img_size": 240}),
    # Shapes that timm defines, and registers (2309.16588).
    ("vit_base_patch16_plus_240 vit_base_patch32_plus_256", _PLUS | _SCALED),
    ("vit_base_patch16_rpn_224", _MEAN | {"qkv_bias": False, "norm_order": "post"}),
    ("vit_small_patch16_36x1_224", _SCALED | {"depth": 36}),
    ("vit_{wee,little,medium,betwixt}_patch16_reg1_gap_256", _REGISTERED | _ONE),
    ("vit_{little,medium,betwixt,mediumd}_patch16_reg4_gap_256", _REGISTERED | _FOUR),
    ("vit_{betwixt,mediumd}_patch16_reg4_gap_384", _REGISTERED | _FOUR),
    ("vit_base_patch16_reg4_gap_256", _MEAN | _UNPLACED | _FOUR),
    ("vit_so150m_patch16_reg4_gap_{256,384}", _CLASSLESS_MEAN | _PLACED | _FOUR),
    ("vit_so150m_patch16_reg4_map_256", _MAP | _PLACED | _FOUR),
    ("vit_so150m2_patch16_reg1_gap_{256,384,448}", _MEAN | _PLACED | _ONE | _SCALED | {"qkv_bias": False}),
    # DeiT 2012.12877, also distilled; DeiT III 2204.07118.
    ("deit_{tiny,small,base}_patch16_224 deit_base_patch16_384", {}),
    (
        "deit_{tiny,small,base}_distilled_patch16_224 deit_base_distilled_patch16_384",
        {"distill_token": True},
    ),
    ("deit3_{small,medium,base,large}_patch16_224 deit3_{small,base,large}_patch16_384 deit3_huge_patch14_224", _DEIT3),
    # DINOv2 2304.07193, its registers 2309.16588; TIPS v2; RADIO 2412.07679; InternViT 2404.16821.
    ("vit_{small,base,large}_patch14_dinov2", _DINOV2),
    ("vit_{small,base,large}_patch14_reg4_dinov2", _DINOV2 | _UNPLACED | _FOUR),
    ("vit_giant_patch14_dinov2", _DINOV2 | _GIANT2),
    ("vit_giant_patch14_reg4_dinov2", _DINOV2 | _UNPLACED | _FOUR | _GIANT2),
    ("vit_{base,large,so400m}_patch14_reg1_tipsv2", _TIPS2),
    ("vit_giant_patch14_reg1_tipsv2", _TIPS2 | _GIANT2),
    ("vit_{base,large}_patch16_radio_v3", _RADIO | _SCALED),
    ("vit_huge_patch16_radio_v3", _RADIO),
    ("vit_giant_patch16_radio_v3", _RADIO | {"embed_dim": 1536, "num_heads": 24, "mlp_ratio": 4.0}),
    ("vit_{huge,so400m}_patch16_radio_v4", _RADIO | {"num_registers": 9}),
    (
        "vit_intern300m_patch14_448",
        _HEADLESS | {"layer_scale": 0.1, "final_norm": False, "dynamic_img_size": True},
    ),
    # SigLIP 2303.15343 and 2502.14786. timm crops 384 px to 378 px, the largest size that 14 px patches tile.
    ("vit_base_patch16_siglip_{224,256,384,512} vit_large_patch16_siglip_{256,384}", _SIGLIP),
    ("vit_so400m_patch14_siglip_{224,378}", _SIGLIP),
    ("vit_so400m_patch14_siglip_384", _SIGLIP | {"img_size": 378}),
    ("vit_base_patch32_siglip_256 vit_large_patch16_siglip_512", _SIGLIP | _TANH),
    ("vit_so400m_patch16_siglip_{256,384,512} vit_giantopt_patch16_siglip_{256,384}", _SIGLIP | _TANH),
    ("vit_base_patch16_siglip_gap_{224,256,384,512} vit_large_patch16_siglip_gap_{256,384}", _SIGLIP_MEAN),
    ("vit_so400m_patch14_siglip_gap_{224,378,448,896}", _SIGLIP_MEAN),
    ("vit_so400m_patch14_siglip_gap_384", _SIGLIP_MEAN | {"img_size": 378}),
    ("vit_base_patch32_siglip_gap_256 vit_large_patch16_siglip_gap_512", _SIGLIP_MEAN | _TANH),
    (
        "vit_so400m_patch16_siglip_gap_{256,384,512} vit_giantopt_patch16_siglip_gap_{256,384}",
        _SIGLIP_MEAN | _TANH,
    ),
    # CLIP 2103.00020: the number of classes of timm's fine-tuned weights, otherwise the width of the embedding.
    ("vit_base_patch32_clip_{224,384,448} vit_base_patch16_clip_{224,384}", _CLIP),
    ("vit_large_patch14_clip_{224,336} vit_huge_patch14_clip_{224,336}", _CLIP),
    ("vit_{xsmall,medium}_patch16_clip_224 vit_{medium,betwixt}_patch32_clip_224", _CLIP | {"num_classes": 512}),
    ("vit_base_patch32_clip_256", _CLIP | {"num_classes": 512}),
    ("vit_base_patch16_plus_clip_240", _CLIP | _PLUS | {"num_classes": 640}),
    ("vit_huge_patch14_clip_378 vit_giant_patch14_clip_224", _CLIP | {"num_classes": 1024}),
    ("vit_gigantic_patch14_clip_{224,378}", _CLIP | {"num_classes": 1280}),
    ("vit_base_patch{16,32}_clip_quickgelu_224", _QUICK | {"num_classes": 512}),
    ("vit_large_patch14_clip_quickgelu_{224,336}", _QUICK | {"num_classes": 768}),
    ("vit_huge_patch14_clip_quickgelu_{224,378}", _QUICK | {"num_classes": 1024}),
    ("vit_gigantic_patch14_clip_quickgelu_224", _QUICK | {"num_classes": 1280}),
    # DINOv3 2508.10104; `_qkvb` has the biases of queries and values, which are zero in some of the weights.
    ("vit_{small,base,large}_patch16_dinov3", _DINOV3),
    ("vit_{tiny,small,base,large}_patch16_dinov3_qkvb", _DINOV3 | _KEYLESS),
    ("vit_{small,huge}_plus_patch16_dinov3", _DINOV3 | _SWIGLU),
    ("vit_{small,huge}_plus_patch16_dinov3_qkvb", _DINOV3 | _SWIGLU | _KEYLESS),
    ("vit_7b_patch16_dinov3", _DINOV3 | _SWIGLU),
    ("vit_{small,base,large}_patch16_lingbot", _LINGBOT | _KEYLESS),
    ("vit_giant_patch16_lingbot", _LINGBOT | _GIANT2),
    # RoPE-ViT 2403.13298; `ape` adds absolute position embeddings.
    ("vit_{small,base,large}_patch16_rope_224", _ROTARY),
    ("vit_{small,base,large}_patch16_rope_ape_224", _ROTARY | _PLACED_TOO),
    ("vit_{small,base,large}_patch16_rope_mixed_224", _MIXED),
    ("vit_{small,base,large}_patch16_rope_mixed_ape_224", _MIXED | _PLACED_TOO),
    ("vit_{medium,base}_patch16_rope_reg1_gap_256", _ROTARY_MEAN | _ONE),
    ("vit_betwixt_patch16_rope_reg4_gap_256", _ROTARY_MEAN | _FOUR),
    ("vit_mediumd_patch16_rope_reg1_gap_256", _ROTARY_MEAN | _ONE | {"qkv_bias": False}),
    # EVA 2211.07636.
    ("eva_large_patch14_{196,336}", _EVA),
    ("eva_giant_patch14_{224,336,560}", _EVA | _KEYLESS),
    ("eva_giant_patch14_clip_224", _KEYLESS | {"num_classes": 1024}),
    # AIMv2 2411.14402.
    ("aimv2_large_patch14_{224,336,448}", _AIM2 | {"num_heads": 8, "mlp_ratio": 2.75}),
    ("aimv2_huge_patch14_{224,336,448}", _AIM2 | {"embed_dim": 1536, "num_heads": 12, "mlp_ratio": 8 / 3}),
    ("aimv2_1b_patch14_{224,336,448}", _AIM2 | {"embed_dim": 2048, "num_heads": 16, "mlp_ratio": 2.75}),
    ("aimv2_3b_patch14_{224,336,448}", _AIM2 | {"embed_dim": 3072, "num_heads": 24, "mlp_ratio": 8 / 3}),
    # Models of timm's tests.
    ("test_vit", _TEST | {"embed_dim": 64, "depth": 6, "num_heads": 2}),
    ("test_vit2", _TEST_MEAN | {"embed_dim": 64, "depth": 8, "num_heads": 2}),
    ("test_vit4", _TEST_MEAN | {"embed_dim": 96, "depth": 9, "num_heads": 3, "norm": "rms"}),
)

TIMM_POOLS: Mapping[str, str] = {"token": "token", "avg": "mean", "max": "max", "map": "map"}
"""timm's name of a pool -> ours."""

TAGS: Mapping[str, Changes] = {
    # MAE 2111.06377: the pretrained encoder, whose fixed position embeddings timm stores as learned ones.
    "mae": _HEADLESS | {"init": "mae"},
}
"""Changes for timm's tags of weights, which follow the dot of a name; other tags do not change the architecture."""


def expand(pattern: str) -> list[str]:
    """Expand braces as a shell does: `a{b,c}` becomes `ab` and `ac`."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


PUBLISHED: Mapping[str, Changes] = {
    name: changes for patterns, changes in ROWS for pattern in patterns.split() for name in expand(pattern)
}
"""Published names and the changes of each."""
