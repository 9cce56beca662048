"""Numbers a user may set -> ObjectiveConfig."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vitreous.errors import ConfigError, UnknownNameError, nearest

LossKind = Literal["cross_entropy", "bce"]
"""One question of all classes, or a question of each."""
ClassWeights = Literal["none", "balanced"]
"""All classes weigh alike, or each as much as the others whatever the number of its images."""
Distill = Literal["soft", "hard", "token", "token_soft", "feature"]
"""What a student learns from a teacher; see `ObjectiveConfig.distill`."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Attributes:
        loss: `cross_entropy`, or `bce`: binary cross-entropy, each class a yes or no of its own.
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
        bce_threshold: Share of a mixed image, in [0, 1), above which it shows a class in full, and else not at all;
            None takes shares as they are. Of `bce` alone; 0 in DeiT III, 0.2 in "ResNet strikes back".
        class_weights: `none` or `balanced`, by the training images of each class.
        logit_adjustment: τ: times the logarithm of each class's frequency is added to the logits in training, so that
            rare classes are called as readily as others; 1 is usual, 0 is off. Of `cross_entropy` alone, and of the
            labels: a teacher is followed by the logits themselves.
        teacher: Run folder, file of weights or `hf://organisation/name` of a trained model to learn from beside the
            labels; None: nobody.
        distill: What is learned from it: `soft`: its probabilities; `hard`: the class it calls; `token`: the same, by
            the distillation token (`model.distill_token`), `token_soft`: its probabilities by that token; `feature`:
            how an image's patches resemble one another, for which it needs no classes.
        distill_temperature: Divides both logits where probabilities are learned; higher tells more of the classes that
            the teacher does not call.
        distill_weight: Share of the loss that is the teacher's, above 0 and at most 1; the rest is the labels'.

    Raises:
        ConfigError: A value out of its range, or one that has no effect beside the others.
        UnknownNameError: A choice that does not exist.
    """

    loss: LossKind = "cross_entropy"
    label_smoothing: float = 0.1
    bce_threshold: float | None = None
    class_weights: ClassWeights = "none"
    logit_adjustment: float = 0.0
    teacher: str | None = None
    distill: Distill = "soft"
    distill_temperature: float = 2.0
    distill_weight: float = 0.5

    def __post_init__(self) -> None:
        for key, kind in (("loss", LossKind), ("class_weights", ClassWeights), ("distill", Distill)):
            _check_choice(key, getattr(self, key), get_args(kind))
        if not 0 <= self.label_smoothing < 1:
            raise _refused("label_smoothing", self.label_smoothing, "must be at least 0 and below 1; 0.1 is usual")
        if not 0 <= self.logit_adjustment < math.inf:
            raise _refused(
                "logit_adjustment", self.logit_adjustment, "must be at least 0 and finite; 1 is usual, 0 is off"
            )
        if self.logit_adjustment and self.loss == "bce":
            way_out = "set it to 0, or objective.loss=cross_entropy"
            raise _refused(
                "logit_adjustment", self.logit_adjustment, f"has no meaning for objective.loss=bce; {way_out}"
            )
        if self.bce_threshold is not None:
            self._check_threshold(self.bce_threshold)
        if not 0 < self.distill_temperature < math.inf:
            raise _refused(
                "distill_temperature", self.distill_temperature, "must be above 0 and finite; 1 to 4 is usual"
            )
        if not 0 < self.distill_weight <= 1:
            way_out = "0.5 is usual, and objective.teacher=none does without"
            raise _refused("distill_weight", self.distill_weight, f"must be above 0 and at most 1; {way_out}")
        if self.teacher is None and self.distill != "soft":
            raise _refused("distill", self.distill, "needs a teacher; set objective.teacher to a trained model")
        if self.teacher is not None and not self.teacher.strip():
            raise _refused(
                "teacher", repr(self.teacher), "must name a trained model; give a run folder, or leave it out"
            )

    def _check_threshold(self, threshold: float) -> None:
        if not 0 <= threshold < 1:
            raise _refused("bce_threshold", threshold, "must be at least 0 and below 1; 0 and 0.2 are usual")
        if self.loss != "bce":
            way_out = "set that, or leave it out"
            raise _refused("bce_threshold", threshold, f"is of objective.loss=bce, which is {self.loss}; {way_out}")


def _check_choice(key: str, got: str, known: tuple[Any, ...]) -> None:
    if got not in known:
        raise UnknownNameError(f"objective.{key}={got}: no such choice; {nearest(str(got), known)}")


def _refused(key: str, got: object, rule: str) -> ConfigError:
    return ConfigError(f"objective.{key}={got}: {rule}")
