"""Tiny images, 8 to 15 px, such as the digits that scikit-learn ships."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.choices import data_choices, model_choices


def digits(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """1,797 handwritten digits of 8×8 px (Alpaydin & Kaynak 1998), a quarter held out for the test.

    Command: `vitreous train digits`
    Cost: about a minute on two shared Zen 3 cores.
    Measured: 98.8 % of 441 test images, mean of 5 seeds, 98.4 to 99.1 (`benchmarks/front_door.py`).
    """
    img_size = asked.get("data.img_size", (facts.height_px, facts.width_px))
    return [
        *data_choices(facts, asked, img_size),
        Choice("data.max_shift", 0.06, "a digit moved by half a pixel is the same digit"),
        Choice("data.max_rotate_deg", 8.0, "people slant their writing"),
        Choice("data.max_scale", 0.1, "and write larger or smaller"),
        *model_choices(facts, asked, img_size, size="pico", patch_size=2 if not any(s % 2 for s in img_size) else 1),
        Choice("train.epochs", 40.0, "more gains nothing on these digits; under a minute on two cores"),
    ]
