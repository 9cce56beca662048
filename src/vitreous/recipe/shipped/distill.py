"""A small model that learns from the labels and from a larger trained model."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, patch_size_for, tileable_size
from vitreous.recipe.shipped.choices import data_choices, epoch_choice, model_choices


def distill(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train a small model to match the probabilities of a teacher, which sees the same mixed images.

    Source: Hinton et al. 2015 (1503.02531), Beyer et al. 2022 (2106.05237).

    Command: `vitreous train digits --recipe distill --objective.teacher runs/digits-1`
    Cost: a third more time than a run without a teacher, if the teacher is as large as the model.
    Measured: `vit_pico` on the digits, 5 epochs: 98.7% (98.4% to 98.9%) with a teacher of 99.1%, 98.3% (98.0% to 98.6%)
    without, three seeds each (`benchmarks/distill.py`). With 441 test images this difference is not significant.
    """
    if asked.get("objective.teacher") is None:
        raise ConfigError(
            "objective.teacher=none: recipe distill learns from a trained model; give --objective.teacher RUN"
        )
    img_size = asked.get("data.img_size", tileable_size(facts.height_px, facts.width_px))
    size = by_num_images(facts.num_train).size
    return [
        *data_choices(facts, asked, img_size),
        Choice("data.max_shift", 0.06, "objects are a little off-center"),
        Choice("data.max_scale", 0.1, "objects vary a little in size"),
        Choice(
            "data.mixup_alpha",
            0.2,
            "on mixed images, even a teacher that is always right gives informative probabilities",
        ),
        *model_choices(facts, asked, img_size, size=size, patch_size=patch_size_for(img_size)),
        Choice("objective.distill", "soft", "the teacher's probabilities show which classes are similar"),
        Choice("objective.distill_temperature", 2.0, "shows more of that similarity"),
        Choice("objective.distill_weight", 0.5, "labels and teacher count equally"),
        epoch_choice(facts),
    ]
