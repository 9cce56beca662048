"""Teacher, data facts, budget -> size of the images that the teacher sees, and the seconds that it needs for all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from vitreous.data.survey.facts import DataFacts
from vitreous.model.cost.count import count_flops
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.plan import Choice
from vitreous.training.machine.device import resolve_device, resolve_precision
from vitreous.training.weights.pretrained import Pretrained
from vitreous.training.weights.teacher import has_head, resized
from vitreous.training.weights.teaching import MOST_SHARE
from vitreous.training.weights.transfer import image_sizes
from vitreous.wording import plural

TEACHER_SHARE = 0.2
"""Share of a time budget that the teacher may take if the size of its images is chosen."""
_KEY = "objective.teacher_img_size"


@dataclass(frozen=True)
class PlannedTeacher:
    """A teacher as a run will use it.

    Attributes:
        model: The teacher, for images of its planned size; None if there is none.
        choices: Choices that the plan takes over.
        notes: What the user should know, one sentence each.
        pass_s: Seconds that it needs to see all training images, at most what the budget allows; 0 without a budget.
    """

    model: Pretrained | None = None
    choices: tuple[Choice, ...] = ()
    notes: tuple[str, ...] = ()
    pass_s: float = 0.0


def plan_teacher(
    teacher: Pretrained | None,
    facts: DataFacts,
    asked: Mapping[str, Any],
    features_per_s: Callable[[VisionTransformer, torch.device, str], float],
) -> PlannedTeacher:
    """Choose the size of a teacher that has no head for the classes, and measure how long it takes.

    With a budget, that is the largest size at which one pass over the images takes at most `TEACHER_SHARE` of it, if
    there is one. The speed is measured at the smallest size; the operations per image show that of the others.
    `features_per_s` takes (model, device, precision), and measures the images per second of a forward pass.
    """
    if teacher is None or asked.get("objective.distill") == "feature":
        return PlannedTeacher(teacher)
    model, is_complete, notes = teacher.model.config, has_head(teacher, facts.classes), list[str]()
    sizes = [model.img_size] if is_complete else list(image_sizes(model, model.patch_size))
    if asked.get(_KEY):
        sizes = [asked[_KEY]]
    if not is_complete:
        classes = plural(len(facts.classes), "class", "classes")
        notes.append(
            f"objective.teacher={teacher.source}: has no head for the {classes} of the data; one is fitted to its "
            "features of the training images"
        )
    size, pass_s, reason = sizes[0], 0.0, "its own size, or the largest of at most 256 patches"
    if budget_s := asked.get("train.budget_s"):
        smallest = resized(teacher, sizes[-1]).model
        device = resolve_device(asked.get("train.device", "auto"))
        precision = resolve_precision(asked.get("train.precision", "auto"), device)
        num_views = 2 if asked.get("data.flip", facts.mirror) else 1
        image_s = num_views / features_per_s(smallest, device, precision)
        per_flop = facts.num_train * image_s / count_flops(smallest.config)
        seconds = {size: per_flop * count_flops(replace(model, img_size=size)) for size in sizes}
        size = next((size for size in sizes if seconds[size] <= TEACHER_SHARE * budget_s), sizes[-1])
        pass_s = min(seconds[size], MOST_SHARE * budget_s)
        reason = f"the teacher needs about {seconds[size]:,.0f} s of the budget for all training images"
    choices = (Choice(_KEY, size, reason),) if len(sizes) > 1 else ()
    return PlannedTeacher(resized(teacher, size), choices, tuple(notes), pass_s)
