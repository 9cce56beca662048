"""ModelConfig -> the `config.json` with which timm builds the model: a function of timm and its arguments."""

import json
import math
from collections.abc import Mapping
from typing import Any

from vitreous.errors import ConfigError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.published import TIMM_POOLS
from vitreous.model.weights.table import prefix_positions
from vitreous.model.weights.timm.config import grid_indexing

_POOLS = {ours: theirs for theirs, ours in TIMM_POOLS.items()}
_LOOSE_EPS = 1e-5
"""The other constant that timm has in norms. No argument sets it, so it decides which function builds the model."""
_ROTARY = {"none": "rope_224", "axial": "rope_224", "mixed": "rope_mixed_224", "dinov3": "dinov3"}


def _shared(config: ModelConfig, mlp_dim: int) -> dict[str, Any]:
    """Return the arguments that both classes of timm have."""
    ratio = mlp_dim / config.embed_dim
    if int(config.embed_dim * ratio) != mlp_dim:  # timm rounds down
        ratio = math.nextafter(ratio, math.inf)
    return {
        "img_size": list(config.img_size),
        "patch_size": config.patch_size,
        "in_chans": config.in_chans,
        "global_pool": _POOLS[config.pool],
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": ratio,
        "qkv_bias": config.qkv_bias,
        "init_values": config.layer_scale or None,
        "class_token": config.has_class_token,
        "no_embed_class": not prefix_positions(config),
        "dynamic_img_size": config.dynamic_img_size,
    }


def describe_vit(config: ModelConfig) -> dict[str, str]:
    """Return the text of `config.json`, by file name, for a model of `vision_transformer.py` or `deit.py`.

    Raises:
        ConfigError: No function of timm builds this model.
    """
    is_loose, is_packed = config.norm_eps == _LOOSE_EPS, config.mlp == "gated" and not config.patch_norm
    names = {
        "deit_small_distilled_patch16_224": config.distill_token,
        "vit_base_patch16_rpn_224": config.norm_order == "post",
        "aimv2_large_patch14_224": config.mlp == "gated" and config.patch_norm,
        "vit_giant_patch14_dinov2": is_packed,
        "vit_xsmall_patch16_clip_224": is_loose,
    }
    chosen = [name for name, applies in names.items() if applies]
    name = next(iter(chosen), "vit_small_patch16_224")
    has_eps = is_loose and (name, config.norm) in (
        ("aimv2_large_patch14_224", "rms"), ("vit_xsmall_patch16_clip_224", "layer" if not config.patch_norm else "")
    )  # fmt: skip
    norm = "rmsnorm" if config.norm == "rms" else "layernorm"
    arguments = _shared(config, config.mlp_dim * (2 if is_packed else 1)) | {
        "qk_norm": config.qk_norm,
        "proj_bias": config.proj_bias,
        "reg_tokens": config.num_registers,
        "pre_norm": config.embed_norm,
        "final_norm": config.final_norm or config.fc_norm,
        "fc_norm": config.fc_norm,
        "act_layer": config.act,
    }
    if not has_eps:
        arguments |= {"norm_layer": norm} | ({"embed_norm_layer": norm} if config.patch_norm else {})
    refused = {
        f"model.norm_eps={config.norm_eps:g}": is_loose and not has_eps,
        f"model.patch_bias={config.patch_bias}": config.patch_bias == config.embed_norm,
        f"model.mlp_bias={config.mlp_bias} with model.proj_bias={config.proj_bias}": config.mlp_bias
        != config.proj_bias,
        "model.final_norm=True with model.fc_norm=True": config.final_norm and config.fc_norm,
        f"model.norm_order={config.norm_order}": config.norm_order == "post" and bool(chosen[1:] or config.layer_scale),
        "model.distill_token=True": config.distill_token
        and (bool(chosen[1:] or config.num_registers) or config.prefix_position == "none"),
    }
    return _written(config, name, arguments, refused)


def describe_eva(config: ModelConfig) -> dict[str, str]:
    """Return the text of `config.json`, by file name, for a model of `eva.py`. Raises like `describe_vit`."""
    arguments = _shared(config, config.mlp_dim) | {
        "attn_type": "rope" if config.key_bias or not config.qkv_bias else "eva",
        "num_reg_tokens": config.num_registers,
        "use_abs_pos_emb": config.position == "learned",
        "use_rot_pos_emb": config.rotary != "none",
        "rope_temperature": config.rotary_theta,
        "use_pre_transformer_norm": config.embed_norm,
        "use_post_transformer_norm": config.final_norm,
        "use_fc_norm": config.fc_norm,
    }
    if config.rotary == "axial":
        arguments["rope_grid_indexing"] = grid_indexing(config.rotary_theta)
    if config.mlp == "gated":
        arguments |= {"swiglu_mlp": True, "swiglu_align_to": 1}
    act = "silu" if config.mlp == "gated" else "gelu"
    refused = {
        f"model.norm_eps={config.norm_eps:g}": (config.norm_eps == _LOOSE_EPS) != (config.rotary == "dinov3"),
        f"model.norm={config.norm}": config.norm != "layer",
        f"model.act={config.act}": config.act != act,
        "model.patch_norm=True": config.patch_norm,
        f"model.patch_bias={config.patch_bias}": config.patch_bias == config.embed_norm,
        "model.proj_bias=False": not config.proj_bias,
        "model.mlp_bias=False": not config.mlp_bias,
    }
    return _written(config, f"vit_small_patch16_{_ROTARY[config.rotary]}", arguments, refused)


def _written(
    config: ModelConfig, name: str, arguments: Mapping[str, Any], refused: Mapping[str, bool]
) -> dict[str, str]:
    choices = [choice for choice, applies in refused.items() if applies]
    if choices:
        raise ConfigError(f"to=timm: no function of timm builds a model with {', '.join(choices)}; use to=vitreous")
    heads = ["head", "head_dist"] if config.distill_token else "head"
    values = {
        "architecture": name,
        "num_classes": config.num_classes,
        "num_features": config.embed_dim,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [config.in_chans, *config.img_size],
            "fixed_input_size": not config.dynamic_img_size,
            "first_conv": "patch_embed.proj",
            "classifier": heads,
        },
    }
    return {"config.json": json.dumps(values, indent=2) + "\n"}
