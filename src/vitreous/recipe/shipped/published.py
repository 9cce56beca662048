"""Published hyperparameters, data facts -> choices of a recipe that repeats a paper."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.model.config.presets import SIZES
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.choices import class_choices

SIDE_PX = 224


def published_choices(
    facts: DataFacts, asked: Mapping[str, Any], *, size: str, values: Mapping[str, Any], source: str
) -> list[Choice]:
    """Return a paper's choices, whatever the data.

    The facts decide channels, classes and mirroring, and `asked` has the keys that the user sets. The model has patches
    of 16 px. `values` are the other hyperparameters of the paper by dotted key, and `source` is where it gives them,
    e.g. `DeiT, table 9`.
    """
    row = SIZES[size]
    return [
        Choice("data.img_size", asked.get("data.img_size", (SIDE_PX, SIDE_PX)), source),
        *class_choices(facts),
        Choice("model.patch_size", 16, source),
        Choice("model.embed_dim", row.embed_dim, f"`vit_{size}`"),
        Choice("model.depth", row.depth, f"`vit_{size}`"),
        Choice("model.num_heads", row.num_heads, f"`vit_{size}`"),
        *(Choice(key, value, source) for key, value in values.items()),
    ]
