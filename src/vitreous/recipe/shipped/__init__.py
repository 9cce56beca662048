"""A name -> a recipe: a function from data facts to choices, each with its reason.

A recipe's docstring is its paper: what it is for, the command, the cost, the measured accuracy.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vitreous.data.facts import DataFacts
from vitreous.errors import UnknownNameError, nearest
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.digits import digits
from vitreous.recipe.shipped.small_images import small_images
from vitreous.recipe.shipped.small_photos import small_photos

Recipe = Callable[[DataFacts, Mapping[str, Any]], list[Choice]]
"""(facts, keys the user asked for) -> choices; a wish is honoured and may change the others."""

SHIPPED: dict[str, Recipe] = {"digits": digits, "small-images": small_images, "small-photos": small_photos}


def recipe_named(name: str) -> Recipe:
    """A shipped recipe. Raises UnknownNameError for any other name, with the nearest one."""
    if name not in SHIPPED:
        raise UnknownNameError(f"recipe={name}: no such recipe; {nearest(name, SHIPPED)}, or give a YAML file")
    return SHIPPED[name]


def recipe_for(facts: DataFacts) -> str:
    """The name of the recipe that suits a data set, by the size of its images in px."""
    side_px = min(facts.height_px, facts.width_px)
    return "digits" if side_px < 16 else "small-images" if side_px <= 64 else "small-photos"
