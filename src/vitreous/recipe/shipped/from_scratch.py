"""Images, by their size -> the recipe that trains on them from scratch."""

from collections.abc import Callable, Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import by_num_images, halvable_size, patch_size_for, suits_convolutions, tileable_size
from vitreous.recipe.shipped.choices import data_choices, epoch_choice, learner_choices, mixing_choices, model_choices

Recipe = Callable[[DataFacts, Mapping[str, Any]], list[Choice]]
"""(facts, keys that the user sets) -> choices. The user's keys are kept and may change the other choices."""

_PHOTO_PX = 64


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
        *data_choices(facts, img_size),
        Choice("data.max_shift", 0.06, "a digit shifted by half a pixel is the same digit"),
        Choice("data.max_rotate_deg", 8.0, "handwriting is slanted"),
        Choice("data.max_scale", 0.1, "handwriting varies in size"),
        *model_choices(facts, asked, img_size, size="pico", patch_size=2 if not any(s % 2 for s in img_size) else 1),
        Choice("train.epochs", 40.0, "longer runs are no more accurate on the digits"),
    ]


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
        *data_choices(facts, img_size),
        Choice("data.max_shift", 0.1, "objects in small images are a little off-center"),
        Choice("data.max_scale", 0.1, "objects vary a little in size"),
        *mixing_choices(asked, mixup_alpha=0.0),
        *model_choices(facts, asked, img_size, size=by_num_images(facts.num_train).size, patch_size=patch_size),
        *learner_choices(stem),
        epoch_choice(facts),
    ]


def small_photos(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train from scratch on a few photos per class: strong crops, mixed photos, a small model, many epochs.

    Command: `vitreous train sign-digits --budget 5m`
    Cost: five minutes on two cores of an AMD EPYC with AVX-512 bf16.
    Measured: 99.0% on 420 test images, one seed (`benchmarks/small_data.py`).
    """
    img_size = asked.get("data.img_size", (_PHOTO_PX, _PHOTO_PX))
    stem = asked.get("model.stem", "conv")
    patch_size = asked.get("model.patch_size", patch_size_for(img_size, stem=stem))
    if "model.stem" not in asked and not suits_convolutions(img_size, patch_size):
        stem, patch_size = "linear", asked.get("model.patch_size", patch_size_for(img_size))
    return [
        *data_choices(facts, img_size),
        Choice("data.fit", "squash", "keeps the whole photo, whatever its aspect ratio"),
        Choice("data.min_crop_area", 0.4, "part of a photo usually shows the same class; crops multiply the data"),
        Choice("data.max_rotate_deg", 10.0, "cameras are rarely held level"),
        *mixing_choices(asked, mixup_alpha=0.2),
        *model_choices(facts, asked, img_size, size=by_num_images(facts.num_train).size, patch_size=patch_size),
        *learner_choices(stem),
        epoch_choice(facts),
    ]


BY_SIZE: dict[str, Recipe] = {"digits": digits, "small-images": small_images, "small-photos": small_photos}


def name_by_size(facts: DataFacts) -> str:
    """Return the name of the recipe that suits the usual height and width of the images."""
    side_px, longer_px = sorted((facts.height_px, facts.width_px))
    return "digits" if side_px < 16 and longer_px <= 64 else "small-images" if side_px <= 64 else "small-photos"
