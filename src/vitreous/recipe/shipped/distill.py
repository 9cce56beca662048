"""Data facts, a trained model -> choices for a small model that learns from the labels and from the trained one."""

from collections.abc import Iterator, Mapping
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe.plan import Choice
from vitreous.recipe.shipped.from_scratch import BY_SIZE, name_by_size


def distill(facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """Train a small model to match the probabilities of a teacher: a trained run, or a backbone for photos.

    With a time budget, the teacher sees each whole training image once, and its probabilities become part of the label.
    That leaves nearly all of the time to the student. Without a budget, the teacher sees the same augmented and mixed
    images as the student in each step. Over long runs that is better: to fixed targets, students overfit (2106.05237).

    Source: Hinton et al. 2015 (1503.02531), Beyer et al. 2022 (2106.05237). A head that is fitted to the teacher's
    features predicts each image without having seen it, as in Dao et al. 2021 (2104.09732).

    Command: `vitreous train photos --recipe distill --teacher auto --budget 4m`, or
    `vitreous train digits --recipe distill --teacher runs/digits-1`
    Cost: with a budget, a fifth of it for a teacher that is chosen. Without, a third more time than a run without a
    teacher, if the teacher is as large as the model.
    Measured: `vit_pico` on the digits, 5 epochs: 98.4% (98.2% to 98.6%) with a teacher of 99.3%, 98.4% (98.0% to 98.6%)
    without, three seeds each (`benchmarks/distill.py`). On photos, a ViT-S/14 as the teacher did not help in four
    minutes either, so compare with a run without a teacher.
    """
    if "objective.teacher" not in asked:
        raise ConfigError(
            "objective.teacher=none: recipe distill learns from a trained model; give --teacher auto, RUN or FILE"
        )
    return [*BY_SIZE[name_by_size(facts)](facts, asked), *_teaching(asked)]


def _teaching(asked: Mapping[str, Any]) -> Iterator[Choice]:
    """Yield how the student learns from the teacher; nothing if none was found."""
    if asked["objective.teacher"] is None:
        return
    yield Choice("objective.distill", "soft", "the teacher's probabilities show which classes are similar")
    yield Choice("objective.distill_weight", 0.5, "labels and teacher count equally")
    if asked.get("objective.teacher_views") == "fixed":
        yield Choice("objective.distill_temperature", 1.0, "the probabilities are learned as labels are")
        yield Choice("objective.label_smoothing", 0.0, "the teacher's probabilities are smooth already")
        return
    yield Choice("objective.distill_temperature", 2.0, "shows more of that similarity")
    reason = "on mixed images, even a teacher that is always right gives informative probabilities"
    yield Choice("data.mixup_alpha", 0.2, reason)
