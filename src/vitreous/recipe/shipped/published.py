"""A table of published hyper-parameters -> choices; what the data decide is taken from the data."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.model.config.presets import SIZES
from vitreous.recipe.plan import Choice

SIDE_PX = 224


def published_choices(
    facts: DataFacts, asked: Mapping[str, Any], *, size: str, values: Mapping[str, Any], source: str
) -> list[Choice]:
    """Choices as a paper made them, for whatever data.

    Args:
        facts: Of the data set.
        asked: What the user sets.
        size: Of the model, cut into 16 px patches, where neither size nor patch is asked for.
        values: The paper's other numbers, by dotted key.
        source: Where they stand, e.g. `DeiT, table 9`.
    """
    row = SIZES[size]
    channels = "the paper's images have colours" if facts.in_chans == 3 else "all images are gray"
    return [
        Choice("data.img_size", asked.get("data.img_size", (SIDE_PX, SIDE_PX)), source),
        Choice("data.in_chans", facts.in_chans, channels),
        Choice("data.num_classes", len(facts.classes), f"{', '.join(facts.classes[:4])} …"),
        Choice("data.flip", facts.mirror, facts.mirror_reason),
        Choice("model.patch_size", 16, source),
        Choice("model.embed_dim", row.embed_dim, f"`vit_{size}`"),
        Choice("model.depth", row.depth, f"`vit_{size}`"),
        Choice("model.num_heads", row.num_heads, f"`vit_{size}`"),
        *(Choice(key, value, source) for key, value in values.items()),
    ]
