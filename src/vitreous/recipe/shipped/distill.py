"""A small model that learns from a trained larger one beside the labels."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, patch_size_for, tileable_size
from vitreous.recipe.shipped.choices import data_choices, epoch_choice, model_choices


def distill(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """The probabilities of a teacher that sees the same, mixed images: Beyer et al. 2022 (2106.05237), Hinton 2015.

    Command: `vitreous train digits --recipe distill --objective.teacher runs/digits-1`
    Cost: a third more than the same run without a teacher of the same size.
    Measured: `vit_pico` on the digits, 5 epochs: 98.7 % (98.4 to 98.9) with a teacher of 99.1 %, 98.3 % (98.0 to 98.6)
    without, three seeds each (`benchmarks/distill.py`); 441 test images, so within their interval.
    """
    if asked.get("objective.teacher") is None:
        raise ConfigError(
            "recipe=distill: learns from a trained model, and objective.teacher names none; "
            "give --objective.teacher RUN"
        )
    img_size = asked.get("data.img_size", tileable_size(facts.height_px, facts.width_px))
    size = by_num_images(facts.num_train).size
    return [
        *data_choices(facts, asked, img_size),
        Choice("data.max_shift", 0.06, "objects stand a little off centre"),
        Choice("data.max_scale", 0.1, "and vary a little in size"),
        Choice("data.mixup_alpha", 0.2, "between two images a teacher that is always right has something to tell"),
        *model_choices(facts, asked, img_size, size=size, patch_size=patch_size_for(img_size)),
        Choice("objective.distill", "soft", "probabilities tell of the classes that an image nearly is"),
        Choice("objective.distill_temperature", 2.0, "tells more of them"),
        Choice("objective.distill_weight", 0.5, "labels and teacher count alike"),
        epoch_choice(facts),
    ]
