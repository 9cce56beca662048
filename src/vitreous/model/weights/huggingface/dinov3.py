"""Tensor names of transformers' DINOv3 <-> ours."""

import dataclasses

import torch

from vitreous.errors import ConfigError
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import attention, write_only
from vitreous.model.weights.huggingface.settings import Settings, describe, sizes
from vitreous.model.weights.shapes import count_blocks, resolve
from vitreous.model.weights.table import BATCHED, VECTOR, Format, Hints, Row, Shapes, kernel, layer, row, stacked

_REGISTERS = "embeddings.register_tokens"
USUAL_PX = 224  # the image size of all published models; rotary positions leave it open


def read_config(shapes: Shapes, hints: Hints) -> ModelConfig:
    """Read the configuration from `config.json` and the shapes."""
    settings = Settings(hints)
    gated = "layer.0.mlp.gate_proj.weight" in shapes
    values = settings.sizes(
        shapes["embeddings.patch_embeddings.weight"],
        depth=count_blocks(shapes, r"^layer\.(\d+)\."),
        hidden=shapes["layer.0.mlp.down_proj.weight"][1],
        num_patches=None,
        heads=6,
        act="gelu",
        eps=1e-5,
    )
    bias = _biases(shapes, settings)
    usual = max(USUAL_PX // values["patch_size"], 1) * values["patch_size"]
    values |= {
        "img_size": values["img_size"] or hints.img_size or (usual, usual),
        "num_classes": 0,
        "position": "none",
        "rotary": "dinov3",
        "rotary_theta": settings.get("rope_theta", 100.0),
        "dynamic_img_size": True,
        "num_registers": settings.get("num_register_tokens", shapes.get(_REGISTERS, (1, 0))[1]),
        "qkv_bias": bias["query"],
        "key_bias": bias["key"] or not bias["query"],
        "proj_bias": bias["proj"],
        "mlp": "gated" if settings.truth("use_gated_mlp", gated) else "plain",
        "mlp_bias": settings.get("mlp_bias", "layer.0.mlp.down_proj.bias" in shapes),
        # The initial value; the trained one is among the weights.
        "layer_scale": settings.get("layerscale_value", 1.0) or 1.0,
        "attn_drop_rate": settings.get("attention_dropout", 0.0),
        "drop_path_rate": settings.get("drop_path_rate", 0.0),
        "drop_path_schedule": "constant",
    }
    return resolve(values, hints)


def _biases(shapes: Shapes, settings: Settings) -> dict[str, bool]:
    """Return which projections have a bias. Raises ConfigError for combinations that our attention does not support."""
    bias = {
        part: settings.truth(f"{part}_bias", f"layer.0.attention.{name}.bias" in shapes)
        for part, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("proj", "o_proj"))
    }
    if bias["value"] != bias["query"] or (bias["key"] and not bias["query"]):
        got = ", ".join(f"{part}_bias={bias[part]}" for part in ("query", "key", "value"))
        raise ConfigError(
            f"{got}: query and value must both have a bias or neither, and key only if they do; "
            "load the model with transformers, and add biases of zero"
        )
    return bias


def rows(config: ModelConfig) -> list[Row]:
    """Build the table of tensor names."""
    width = config.embed_dim
    table = [
        *layer("tokenizer.proj", "embeddings.patch_embeddings", kernel(config)),
        row("prefix.class_token", "embeddings.cls_token", VECTOR),
        write_only("embeddings.mask_token", lambda: torch.zeros(1, 1, width)),
        row("prefix.registers", _REGISTERS, BATCHED)
        if config.num_registers
        else write_only(_REGISTERS, lambda: torch.zeros(1, 0, width)),
        *layer("encoder.norm", "norm"),
    ]
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"layer.{number}"
        projections = [f"{their}.attention.{name}_proj" for name in "qkv"]
        table += [
            *layer(f"{our}.norm1", f"{their}.norm1"),
            *attention(f"{our}.attn", projections, f"{their}.attention.o_proj", config),
            row(f"{our}.ls1.gamma", f"{their}.layer_scale1.lambda1"),
            *layer(f"{our}.norm2", f"{their}.norm2"),
            *_mlp(config, f"{our}.mlp", f"{their}.mlp"),
            row(f"{our}.ls2.gamma", f"{their}.layer_scale2.lambda1"),
        ]
    return table


def _mlp(config: ModelConfig, our: str, their: str) -> list[Row]:
    bias = config.mlp_bias
    fc1 = layer(f"{our}.fc1", f"{their}.up_proj", bias=bias)
    if config.mlp == "gated":
        fc1 = stacked(f"{our}.fc1", [f"{their}.gate_proj", f"{their}.up_proj"], bias=bias)
    return [*fc1, *layer(f"{our}.fc2", f"{their}.down_proj", bias=bias)]


def _describe(config: ModelConfig) -> dict[str, str]:
    values = {
        "model_type": "dinov3_vit",
        **sizes(config),
        "intermediate_size": config.mlp_dim,
        "num_register_tokens": config.num_registers,
        "rope_theta": float(config.rotary_theta),
        "query_bias": config.qkv_bias,
        "key_bias": config.qkv_bias and config.key_bias,
        "value_bias": config.qkv_bias,
        "proj_bias": config.proj_bias,
        "mlp_bias": config.mlp_bias,
        "use_gated_mlp": config.mlp == "gated",
        "layerscale_value": float(config.layer_scale),
        "attention_dropout": config.attn_drop_rate,
        "drop_path_rate": config.drop_path_rate,
        # Augmentation of coordinates in training, which our models do not have.
        "pos_embed_shift": None,
        "pos_embed_jitter": None,
        "pos_embed_rescale": None,
    }
    return describe(config, "DINOv3ViTModel", values)


_WITH_REGISTERS = Format(
    name="transformers dinov3",
    recognizes=lambda names: names >= {_REGISTERS, "embeddings.patch_embeddings.weight", "layer.0.norm1.weight"},
    read_config=read_config,
    rows=rows,
    fits=lambda shapes: 0 not in shapes[_REGISTERS],
    allowed={
        "position": ("none",),
        "rotary": ("dinov3",),
        "layer_scale": (1.0,),
        "num_classes": (0,),
        "class_token": (None, True),
        "num_registers": None,
        "prefix_position": None,  # irrelevant: no token has a position
        "qkv_bias": (True, False),
        "key_bias": (True, False),
        "proj_bias": (True, False),
        "mlp": ("plain", "gated"),
        "mlp_bias": (True, False),
        "act": None,
        "norm_eps": None,
    },
    renames=((r"^model\.layer\.", "layer."),),
    skipped={r"^embeddings\.mask_token$": "replaces hidden patches in pre-training"},
    describe=_describe,
)
_WITHOUT = dataclasses.replace(
    _WITH_REGISTERS,
    name="transformers dinov3 without registers",
    fits=lambda shapes: 0 in shapes[_REGISTERS],
    skipped={**_WITH_REGISTERS.skipped, rf"^{_REGISTERS}$": "is empty"},
)

DINOV3 = (_WITH_REGISTERS, _WITHOUT)
