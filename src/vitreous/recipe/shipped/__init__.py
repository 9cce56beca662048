"""A name -> a recipe: a function from data facts to choices, each with its reason.

The docstring of a recipe documents what it is for, the command, the cost and the measured accuracy.
"""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import UnknownNameError, nearest
from vitreous.recipe import keys
from vitreous.recipe.shipped.distill import distill
from vitreous.recipe.shipped.fine_tune import fine_tune, linear_probe
from vitreous.recipe.shipped.from_scratch import BY_SIZE, Recipe, name_by_size
from vitreous.recipe.shipped.pretrain import pretrain, pretrain_finetune
from vitreous.recipe.shipped.published import big_vision_s16, deit, deit3

SHIPPED: dict[str, Recipe] = {
    **BY_SIZE, "fine-tune": fine_tune, "linear-probe": linear_probe, "deit": deit, "deit3": deit3,
    "big-vision-s16": big_vision_s16, "distill": distill, "pretrain": pretrain, "pretrain-finetune": pretrain_finetune,
}  # fmt: skip


def recipe_named(name: str) -> Recipe:
    """Return a recipe by name. Raise UnknownNameError, which suggests the nearest name, if there is none."""
    if name not in SHIPPED:
        raise UnknownNameError(f"recipe={name}: no such recipe; {nearest(name, SHIPPED)}, or give a YAML file")
    return SHIPPED[name]


def recipe_for(facts: DataFacts, asked: Mapping[str, Any]) -> str:
    """Return the name of the recipe that suits loss and pretrained weights, or else the size of the images in px."""
    if not keys.has_labels(asked):
        return "pretrain"
    if asked.get("train.pretrained") is not None:
        return "linear-probe" if asked.get("train.freeze") == "backbone" else "fine-tune"
    return name_by_size(facts)
