"""Tensor names of the image tower that CLIP and SigLIP share in transformers <-> ours."""

from typing import Any

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import attention, positions
from vitreous.model.weights.huggingface.settings import Settings, sizes
from vitreous.model.weights.shapes import count_blocks
from vitreous.model.weights.table import Hints, Row, Shapes, kernel, layer

CONFIG = "vision_config"
"""Key of `config.json` under which a model of image and text describes its image tower."""
NUM_HEADS = 12
POSITIONS = "vision_model.embeddings.position_embedding.weight"
NORM = "vision_model.post_layernorm"
RENAMES = ((r"^(embeddings|encoder|pre_layrnorm|post_layernorm|head)\.", r"vision_model.\1."),)
"""Since version 5, the names of a bare tower have no prefix."""
SKIPPED = {
    r"^text_model\.|^text_projection\.": "the text tower",
    r"^logit_(scale|bias)$": "scale and bias of the similarity of image and text",
    r"\.position_ids$": "position numbers, which older versions stored",
}


def read_tower(shapes: Shapes, hints: Hints, *, num_prefix_tokens: int, act: str, eps: float) -> dict[str, Any]:
    """Read fields of ModelConfig from `config.json` and the shapes.

    `num_prefix_tokens` of the positions belong to prefix tokens. `act` and `eps` apply if `config.json` gives none.
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
    """Build the table, without the class token and the norms before and after the blocks."""
    patches = "vision_model.embeddings.patch_embedding"
    table = [
        *layer("tokenizer.proj", patches, kernel(config), bias=config.patch_bias),
        positions(config, POSITIONS, batched=False),
    ]
    for number in range(config.depth):
        our, their = f"encoder.blocks.{number}", f"vision_model.encoder.layers.{number}"
        projections = [f"{their}.self_attn.{name}_proj" for name in "qkv"]
        table += [
            *layer(f"{our}.norm1", f"{their}.layer_norm1"),
            *attention(f"{our}.attn", projections, f"{their}.self_attn.out_proj", config),
            *layer(f"{our}.norm2", f"{their}.layer_norm2"),
            *layer(f"{our}.mlp.fc1", f"{their}.mlp.fc1"),
            *layer(f"{our}.mlp.fc2", f"{their}.mlp.fc2"),
        ]
    return table


def tower_settings(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of the tower in `config.json`, without its `model_type`."""
    return {**sizes(config), "intermediate_size": config.mlp_dim, "attention_dropout": config.attn_drop_rate}
