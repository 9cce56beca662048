"""Tensor names of torchvision's `vision_transformer` <-> ours."""

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.shapes import count_blocks, img_size_of, resolve
from vitreous.model.weights.table import (
    VECTOR,
    Format,
    Hints,
    Row,
    Shapes,
    kernel,
    layer,
    learned_positions,
    row,
)


def read_config(shapes: Shapes, hints: Hints) -> ModelConfig:
    """Read the configuration from the shapes. The number of heads is that of published models of this size."""
    width, in_chans, patch_size, _ = shapes["conv_proj.weight"]
    return resolve(
        {
            "img_size": img_size_of(shapes["encoder.pos_embedding"][1] - 1, patch_size, hints),
            "patch_size": patch_size,
            "in_chans": in_chans,
            "num_classes": shapes["heads.head.weight"][0] if "heads.head.weight" in shapes else 0,
            "embed_dim": width,
            "depth": count_blocks(shapes, r"encoder\.layers\.encoder_layer_(\d+)\."),
            "mlp_ratio": shapes["encoder.layers.encoder_layer_0.mlp.0.weight"][0] / width,
            "position_resize": "torchvision",
            "init": "torchvision",
        },
        hints,
    )


def rows(config: ModelConfig) -> list[Row]:
    """Build the table of tensor names."""
    table = [
        *layer("tokenizer.proj", "conv_proj", kernel(config)),
        row("prefix.class_token", "class_token", VECTOR),
        learned_positions(config, "encoder.pos_embedding"),
        *layer("encoder.norm", "encoder.ln"),
    ]
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"encoder.layers.encoder_layer_{number}"
        table += [
            *layer(f"{our}.norm1", f"{their}.ln_1"),
            row(f"{our}.attn.qkv.weight", f"{their}.self_attention.in_proj_weight"),
            row(f"{our}.attn.qkv.bias", f"{their}.self_attention.in_proj_bias"),
            *layer(f"{our}.attn.proj", f"{their}.self_attention.out_proj"),
            *layer(f"{our}.norm2", f"{their}.ln_2"),
            *layer(f"{our}.mlp.fc1", f"{their}.mlp.0"),
            *layer(f"{our}.mlp.fc2", f"{their}.mlp.3"),
        ]
    return table + (layer("head", "heads.head") if config.num_classes else [])


TORCHVISION = Format(
    name="torchvision",
    recognizes=lambda names: {"conv_proj.weight", "encoder.pos_embedding"} <= names,
    read_config=read_config,
    rows=rows,
    renames=((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3.")),
)
