"""Small images, 16 to 64 px, such as Fashion-MNIST."""

from collections.abc import Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, halvable_size, patch_size_for, suits_convolutions, tileable_size
from vitreous.recipe.shipped.choices import data_choices, epoch_choice, learner_choices, mixing_choices, model_choices


def small_images(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train from scratch on small images whose objects fill the frame.

    Command: `vitreous train fashion-mnist --budget 10m`
    Cost: ten minutes on two cores.
    Measured: 93.6% on 10,000 test images, one seed, two cores of an AMD EPYC with AVX-512 bf16; 92.2% in three minutes
    (`benchmarks/small_data.py`).
    """
    stem, (height, width) = asked.get("model.stem", "conv"), (facts.height_px, facts.width_px)
    suiting = halvable_size if stem == "conv" else tileable_size
    img_size = asked.get("data.img_size", suiting(height, width))
    patch_size = asked.get("model.patch_size", patch_size_for(img_size, stem=stem))
    if "model.stem" not in asked and not suits_convolutions(img_size, patch_size):
        stem, img_size = "linear", asked.get("data.img_size", tileable_size(height, width))
        patch_size = asked.get("model.patch_size", patch_size_for(img_size))
    return [
        *data_choices(facts, asked, img_size),
        Choice("data.max_shift", 0.1, "objects in small images are a little off-center"),
        Choice("data.max_scale", 0.1, "objects vary a little in size"),
        *mixing_choices(asked, mixup_alpha=0.0),
        *model_choices(facts, asked, img_size, size=by_num_images(facts.num_train).size, patch_size=patch_size),
        *learner_choices(stem),
        epoch_choice(facts),
    ]
