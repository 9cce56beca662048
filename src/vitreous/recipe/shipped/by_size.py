"""Size of the images -> the recipe that trains on them from scratch."""

from collections.abc import Callable, Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.digits import digits
from vitreous.recipe.shipped.small_images import small_images
from vitreous.recipe.shipped.small_photos import small_photos

Recipe = Callable[[DataFacts, Mapping[str, Any]], list[Choice]]
"""(facts, keys that the user sets) -> choices. The user's keys are kept and may change the other choices."""

BY_SIZE: dict[str, Recipe] = {"digits": digits, "small-images": small_images, "small-photos": small_photos}


def name_by_size(facts: DataFacts) -> str:
    """Return the name of the recipe that suits the usual height and width of the images."""
    side_px, longer_px = sorted((facts.height_px, facts.width_px))
    return "digits" if side_px < 16 and longer_px <= 64 else "small-images" if side_px <= 64 else "small-photos"
