"""The image tower that CLIP and SigLIP share, under transformers' names -> ours."""

from typing import Any

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import attention, positions
from vitreous.model.weights.huggingface.describe import sizes
from vitreous.model.weights.huggingface.settings import Settings
from vitreous.model.weights.shapes import count_blocks
from vitreous.model.weights.table import Hints, Row, Shapes, kernel, layer

CONFIG = "vision_config"
"""The key under which a model of image and text describes its image tower."""
NUM_HEADS = 12
POSITIONS = "vision_model.embeddings.position_embedding.weight"
NORM = "vision_model.post_layernorm"
RENAMES = ((r"^(embeddings|encoder|pre_layrnorm|post_layernorm|head)\.", r"vision_model.\1."),)
"""The bare tower has no prefix since version 5."""
SKIPPED = {
    r"^text_model\.|^text_projection\.": "the text tower",
    r"^logit_(scale|bias)$": "scales the likeness of image and text",
    r"\.position_ids$": "counts positions, as older versions wrote down",
}


def read_tower(shapes: Shapes, hints: Hints, *, num_prefix_tokens: int, act: str, eps: float) -> dict[str, Any]:
    """Fields of ModelConfig that `config.json` and the shapes say.

    Args:
        shapes: Of the file.
        hints: With `config.json`, the tower's own or one in which it is a part.
        num_prefix_tokens: Positions that are no patch's.
        act: The class's default.
        eps: The class's default.
    """
    settings = Settings(hints, CONFIG)
    values = settings.sizes(
        shapes["vision_model.embeddings.patch_embedding.weight"],
        depth=count_blocks(shapes, r"^vision_model\.encoder\.layers\.(\d+)\."),
        hidden=shapes["vision_model.encoder.layers.0.mlp.fc1.weight"][0],
        num_patches=shapes[POSITIONS][0] - num_prefix_tokens,
        heads=NUM_HEADS,
        act=act,
        eps=eps,
    )
    return values | {
        "num_classes": settings.num_classes(shapes, "classifier.weight"),
        "attn_drop_rate": settings.get("attention_dropout", 0.0),
    }


def tower_rows(config: ModelConfig) -> list[Row]:
    """The table, but for the class token and the norms around the blocks."""
    patches = "vision_model.embeddings.patch_embedding"
    table = [
        *layer("tokenizer.proj", patches, kernel(config), bias=config.patch_bias),
        positions(config, POSITIONS, batched=False),
    ]
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"vision_model.encoder.layers.{number}"
        apart = [f"{their}.self_attn.{name}_proj" for name in "qkv"]
        table += [
            *layer(f"{our}.norm1", f"{their}.layer_norm1"),
            *attention(f"{our}.attn", apart, f"{their}.self_attn.out_proj", config),
            *layer(f"{our}.norm2", f"{their}.layer_norm2"),
            *layer(f"{our}.mlp.fc1", f"{their}.mlp.fc1"),
            *layer(f"{our}.mlp.fc2", f"{their}.mlp.fc2"),
        ]
    return table


def tower_settings(config: ModelConfig) -> dict[str, Any]:
    """What the tower's `config.json` holds, whatever it is called."""
    return {**sizes(config), "intermediate_size": config.mlp_dim, "attention_dropout": config.attn_drop_rate}
