"""Tiny images, 8 to 15 px, such as the digits of scikit-learn."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import tileable_size
from vitreous.recipe.shipped.choices import data_choices, model_choices


def digits(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train on images such as the 1,797 handwritten digits of 8×8 px (Alpaydin & Kaynak 1998), a quarter for testing.

    Command: `vitreous train digits`
    Cost: about a minute on two shared Zen 3 cores.
    Measured: 98.8% on 441 test images, mean of 5 seeds, range 98.4% to 99.1% (`benchmarks/front_door.py`).
    """
    is_small = max(facts.height_px, facts.width_px) <= 64
    usual = (facts.height_px, facts.width_px) if is_small else tileable_size(facts.height_px, facts.width_px)
    img_size = asked.get("data.img_size", usual)
    return [
        *data_choices(facts, asked, img_size),
        Choice("data.max_shift", 0.06, "a digit shifted by half a pixel is the same digit"),
        Choice("data.max_rotate_deg", 8.0, "handwriting is slanted"),
        Choice("data.max_scale", 0.1, "handwriting varies in size"),
        *model_choices(facts, asked, img_size, size="pico", patch_size=2 if not any(s % 2 for s in img_size) else 1),
        Choice("train.epochs", 40.0, "longer runs are no more accurate on the digits"),
    ]
