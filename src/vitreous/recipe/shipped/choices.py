"""Data facts -> the choices that all recipes make alike."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.model.config.presets import SIZES
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, learning_rate


def data_choices(facts: DataFacts, asked: Mapping[str, Any], img_size: tuple[int, int]) -> list[Choice]:
    """What follows from the images themselves."""
    seen = f"{facts.height_px}x{facts.width_px}"
    reason = f"the images are {seen} px" if img_size == (facts.height_px, facts.width_px) else (
        f"half of the images are at least {seen} px; this size keeps what matters and trains fast")  # fmt: skip
    colour = "all images are gray" if facts.in_chans == 1 else "there are colour images"
    rule = by_num_images(facts.num_train)
    return [
        Choice("data.img_size", img_size, reason),
        Choice("data.in_chans", facts.in_chans, colour),
        Choice("data.num_classes", len(facts.classes), f"{', '.join(facts.classes[:4])} …"),
        Choice("data.flip", facts.mirror, facts.mirror_reason),
        Choice("data.batch_size", rule.batch_size, f"suits {facts.num_train:,} training images"),
    ]


def model_choices(
    facts: DataFacts, asked: Mapping[str, Any], img_size: tuple[int, int], *, size: str, patch_size: int
) -> list[Choice]:
    """Architecture and learning rate of a model size of the table."""
    row = SIZES[size]
    patch_size = asked.get("model.patch_size", patch_size)
    num_tokens = (img_size[0] // patch_size) * (img_size[1] // patch_size)
    batch_size = asked.get("data.batch_size", by_num_images(facts.num_train).batch_size)
    embed_dim = asked.get("model.embed_dim", row.embed_dim)
    fits = f"`vit_{size}` suits {facts.num_train:,} training images"
    return [
        Choice("model.patch_size", patch_size, f"cuts an image into {num_tokens} tokens"),
        Choice("model.embed_dim", row.embed_dim, fits),
        Choice("model.depth", row.depth, fits),
        Choice("model.num_heads", row.num_heads, fits),
        Choice("model.pool", "mean", "+1.5 to +4 points over a class token on small data (2104.05704)"),
        Choice("model.init", "xavier", "narrow models need larger first weights than wide ones"),
        Choice("model.drop_path_rate", 0.1, "regularises; drops whole residual branches"),
        Choice("optim.lr", learning_rate(batch_size, embed_dim), f"for batch {batch_size} and width {embed_dim}"),
    ]


def epoch_choice(facts: DataFacts) -> Choice:
    """How often each image is seen where no budget says otherwise."""
    rule = by_num_images(facts.num_train)
    return Choice("train.epochs", float(rule.epochs), f"usual for {facts.num_train:,} training images")
