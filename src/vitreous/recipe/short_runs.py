"""Expected epochs, other choices -> choices that suit a short run: weaker augmentation, a longer warm-up."""

from collections.abc import Iterator, Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe import keys
from vitreous.recipe.plan import Choice
from vitreous.recipe.rules import (
    AUGMENTATION_KEYS,
    ENABLED_BY,
    LONGEST_WARMUP,
    WARMUP_STEPS,
    augmentation_strength,
    why_not_photos,
)


def softened(
    choices: Mapping[str, Choice], epochs: float, asked: Mapping[str, Any], facts: DataFacts
) -> Iterator[Choice]:
    """Yield weaker augmentation and regularization for a short run, which sees each image too rarely to overfit.

    Pretrained weights overfit to photos within two epochs. For them, only drop path is weakened.
    """
    strength = augmentation_strength(epochs, epochs * facts.num_train / choices["data.batch_size"].value)
    if strength == 1:
        return
    how = f"reduced to {strength:.0%}" if strength else "switched off"
    length = f"{epochs:.2g} epoch{'' if epochs == 1 else 's'}"
    reason = f"{how}: in only {length}, augmentation and regularization cost more accuracy than they gain"
    # Only what the recipe enables happens less often; what the user enables is kept.
    rates = {
        rate: 1.0 for rate, enabling in ENABLED_BY.items() if any(k in choices and k not in asked for k in enabling)
    }
    full = rates | {key: choice.value for key, choice in choices.items() if key in AUGMENTATION_KEYS}
    values = {key: value * strength for key, value in full.items()}
    smoothing = choices.get("objective.label_smoothing")
    usual = keys.defaults()["objective.label_smoothing"] if smoothing is None else smoothing.value
    values["objective.label_smoothing"] = usual * strength
    if "data.min_crop_area" in choices:
        values["data.min_crop_area"] = 1 - strength * (1 - choices["data.min_crop_area"].value)
    if asked.get("train.pretrained") is not None and not why_not_photos(facts):
        values = {key: value for key, value in values.items() if key == "model.drop_path_rate"}
    elif facts.mirror and not facts.mirror_looks_usual and "data.flip" not in asked:
        verb = "is" if epochs == 1 else "are"
        unlike = f"mirrored images look unlike the others, and {length} {verb} too short for both"
        yield Choice("data.flip", False, unlike)
    yield from (Choice(key, value, reason) for key, value in values.items() if key not in asked)


def longer_warmup(
    choices: Mapping[str, Choice], epochs: float, asked: Mapping[str, Any], facts: DataFacts
) -> Iterator[Choice]:
    """Yield a longer warm-up for short runs from pretrained weights: Adam's first steps are long and know one batch."""
    usual = keys.defaults()["optim.warmup_ratio"]
    steps = epochs * facts.num_train / choices["data.batch_size"].value
    ratio = float(f"{min(LONGEST_WARMUP, WARMUP_STEPS / max(steps, 1)):.2g}")
    if asked.get("train.pretrained") and {"optim.warmup_ratio", "optim.schedule"}.isdisjoint(asked) and ratio > usual:
        reason = f"{WARMUP_STEPS} steps, or {LONGEST_WARMUP:.0%} of a short run, so that the first ones change little"
        yield Choice("optim.warmup_ratio", ratio, reason)
