"""ObjectiveConfig -> the task whose loss training minimizes."""

from collections.abc import Sequence
from typing import cast

from torch import nn

from vitreous.objective.binary import BinaryCrossEntropy
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.cross_entropy import CrossEntropy, balanced_class_weights
from vitreous.objective.distill import FeatureDistillation, LogitDistillation
from vitreous.objective.joint_embedding import JointEmbedding
from vitreous.objective.logit_adjustment import LogitAdjusted
from vitreous.objective.masked import MaskedModeling
from vitreous.objective.multilabel import MultiLabelCrossEntropy
from vitreous.objective.task import Criterion, Supervised, Task, UnlabeledTask

ClassCounts = Sequence[int] | Sequence[tuple[int, int]]
"""Training images of each class; for `objective.loss=multilabel`, those (without, with) each label."""


def build_task(
    config: ObjectiveConfig, class_counts: ClassCounts | None = None, teacher: nn.Module | None = None
) -> Task:
    """Build the task: the loss of labels, and of a teacher if there is one.

    Without class counts, all classes have the same weight, e.g. to measure speed. The teacher takes images as the model
    does, and gives logits; for `distill=feature`, a map of patch features.
    """
    criterion = build_criterion(config, class_counts)
    if teacher is None:
        return Supervised(criterion)
    if config.distill == "feature":
        return FeatureDistillation(criterion, teacher, weight=config.distill_weight)
    return LogitDistillation(
        criterion,
        teacher,
        weight=config.distill_weight,
        hard=config.distill in ("hard", "token"),
        token=config.distill in ("token", "token_soft"),
        temperature=config.distill_temperature,
    )


def build_pretext_task(config: ObjectiveConfig, *, patch_size: int, num_views: int) -> UnlabeledTask:
    """Build the task of a self-supervised loss; patches have a side in px, and each image has this many views."""
    if config.loss == "lejepa":
        return JointEmbedding(num_views=num_views, regularity_weight=config.regularity_weight)
    return MaskedModeling(patch_size=patch_size, mask_ratio=config.mask_ratio, normalizes=config.loss == "mae")


def build_criterion(config: ObjectiveConfig, class_counts: ClassCounts | None = None) -> Criterion:
    """Build the loss of logits and labels or soft targets; the arguments are those of `build_task`."""
    smoothing, is_balanced = config.label_smoothing, config.class_weights == "balanced"
    if config.loss == "multilabel":
        pairs = cast("Sequence[tuple[int, int]] | None", class_counts)
        by_label = [balanced_class_weights(pair) for pair in pairs] if is_balanced and pairs is not None else None
        return MultiLabelCrossEntropy(label_smoothing=smoothing, class_weights=by_label)
    class_counts = cast("Sequence[int] | None", class_counts)
    weights = balanced_class_weights(class_counts) if is_balanced and class_counts is not None else None
    if config.loss == "bce":
        return BinaryCrossEntropy(label_smoothing=smoothing, threshold=config.bce_threshold, class_weights=weights)
    criterion = CrossEntropy(label_smoothing=smoothing, class_weights=weights)
    if config.logit_adjustment and class_counts is not None:
        return LogitAdjusted(criterion, class_counts, tau=config.logit_adjustment)
    return criterion
