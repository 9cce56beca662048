"""Photos, hundreds to thousands, from a phone or a camera."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, patch_size_for, suits_convolutions
from vitreous.recipe.shipped.choices import data_choices, epoch_choice, learner_choices, mixing_choices, model_choices

SIDE_PX = 64


def small_photos(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train from scratch on a few photos per class: strong crops, mixed photos, a small model, many epochs.

    Command: `vitreous train sign-digits --budget 5m`
    Cost: five minutes on two cores of an AMD EPYC with AVX-512 bf16.
    Measured: 99.0% on 420 test images, one seed (`benchmarks/small_data.py`).
    """
    img_size = asked.get("data.img_size", (SIDE_PX, SIDE_PX))
    stem = asked.get("model.stem", "conv")
    patch_size = asked.get("model.patch_size", patch_size_for(img_size, stem=stem))
    if "model.stem" not in asked and not suits_convolutions(img_size, patch_size):
        stem, patch_size = "linear", asked.get("model.patch_size", patch_size_for(img_size))
    return [
        *data_choices(facts, asked, img_size),
        Choice("data.fit", "squash", "keeps the whole photo, whatever its aspect ratio"),
        Choice("data.min_crop_area", 0.4, "part of a photo usually shows the same class; crops multiply the data"),
        Choice("data.max_rotate_deg", 10.0, "cameras are rarely held level"),
        *mixing_choices(asked, mixup_alpha=0.2),
        *model_choices(facts, asked, img_size, size=by_num_images(facts.num_train).size, patch_size=patch_size),
        *learner_choices(stem),
        epoch_choice(facts),
    ]
