"""Tensor names of OpenCLIP's image tower, which are also those of OpenAI's CLIP <-> ours."""

from typing import Any

from vitreous.errors import ConfigError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import positions
from vitreous.model.weights.huggingface.clip import WITHOUT_BIAS
from vitreous.model.weights.shapes import count_blocks, img_size_of, resolve, way_out
from vitreous.model.weights.table import TRANSPOSED, Format, Hints, Row, Shapes, chain, kernel, layer, row
from vitreous.wording import printable_value

_BLOCKS = "transformer.resblocks"
_HEAD_WIDTH = 64
_POOLS = {"tok": "token", "avg": "mean"}


def read_config(shapes: Shapes, hints: Hints) -> ModelConfig:
    """Read the configuration from the shapes, and from `open_clip_config.json` if there is one."""
    width, in_chans, patch_size, _ = shapes["conv1.weight"]
    described = hints.settings.get("model_cfg")
    model: dict[str, Any] = described if isinstance(described, dict) else {}
    tower = model.get("vision_cfg")
    tower = tower if isinstance(tower, dict) else {}
    pool = "token" if "pool" in hints.architecture else _pool(tower.get("pool_type", "tok"))
    norm_is_last = tower.get("final_ln_after_pool") is True
    values: dict[str, Any] = {
        "img_size": img_size_of(shapes["positional_embedding"][0] - 1, patch_size, hints),
        "patch_size": patch_size,
        "in_chans": in_chans,
        # The projection is the head, as in timm. Its "classes" are the dimensions of the space shared with text.
        "num_classes": shapes["proj"][1] if "proj" in shapes else 0,
        "embed_dim": width,
        "depth": count_blocks(shapes, r"^transformer\.resblocks\.(\d+)\."),
        "num_heads": width // tower.get("head_width", _HEAD_WIDTH) or None,
        "mlp_ratio": shapes[f"{_BLOCKS}.0.mlp.c_fc.weight"][0] / width,
        "act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "norm_eps": 1e-5,
        "patch_bias": False,
        "embed_norm": "ln_pre.weight" in shapes,
        "layer_scale": 1e-5 if f"{_BLOCKS}.0.ls_1.gamma" in shapes else 0.0,
        "pool": pool,
        "class_token": None if pool == "token" else True,
        "final_norm": not norm_is_last,
        "fc_norm": norm_is_last,
    }
    return resolve(values, hints)


def _pool(named: object) -> str:
    """Return our name of a pool."""
    if named not in _POOLS:
        raise ConfigError(
            f"open_clip_config.json.pool_type={printable_value(named)}: our models have no such pool; to use another "
            f"one, pass {way_out('pool', 'mean')}"
        )
    return _POOLS[str(named)]


def rows(config: ModelConfig) -> list[Row]:
    """Build the table of tensor names."""
    table = [
        *layer("tokenizer.proj", "conv1", kernel(config), bias=config.patch_bias),
        row("prefix.class_token", "class_embedding"),
        positions(config, "positional_embedding", batched=False),
        *(layer("encoder.norm_pre", "ln_pre") if config.embed_norm else []),
        *layer("fc_norm" if config.fc_norm else "encoder.norm", "ln_post"),
    ]
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"{_BLOCKS}.{number}"
        table += [
            *layer(f"{our}.norm1", f"{their}.ln_1"),
            row(f"{our}.attn.qkv.weight", f"{their}.attn.in_proj_weight"),
            row(f"{our}.attn.qkv.bias", f"{their}.attn.in_proj_bias"),
            *layer(f"{our}.attn.proj", f"{their}.attn.out_proj"),
            *layer(f"{our}.norm2", f"{their}.ln_2"),
            *layer(f"{our}.mlp.fc1", f"{their}.mlp.c_fc"),
            *layer(f"{our}.mlp.fc2", f"{their}.mlp.c_proj"),
        ]
        if config.layer_scale:
            table += [row(f"{our}.ls{branch}.gamma", f"{their}.ls_{branch}.gamma") for branch in (1, 2)]
    return table + ([row(["head.weight", "head.bias"], "proj", _HEAD)] if config.num_classes else [])


_HEAD = chain(TRANSPOSED, WITHOUT_BIAS)

OPEN_CLIP = Format(
    name="open_clip",
    recognizes=lambda names: names >= {"conv1.weight", "class_embedding", "positional_embedding", "ln_post.weight"},
    read_config=read_config,
    rows=rows,
    allowed={
        "patch_bias": (False,),
        "embed_norm": (True, False),
        "layer_scale": (0.0, 1e-5),
        "class_token": (None, True),
        "prefix_position": ("class", "all"),
        "act": ("gelu", "quick_gelu"),
        "norm_eps": (1e-5,),
    },
    parts=frozenset(("attn_pool", "ln_pre", "patchnorm_pre_ln")),
    assumed=("num_heads", "act", "norm_eps", "pool", "img_size"),
)
"""Source: mlfoundations/open_clip `transformer.py`. OpenAI's own weights, and models with "quickgelu" in their name,
use quick_gelu."""
