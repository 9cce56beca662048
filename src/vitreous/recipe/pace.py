"""Seconds of a budget, seconds per step -> time for training steps: one model for the planner and the training loop."""

from dataclasses import dataclass

from vitreous import processes
from vitreous.data.survey.facts import DataFacts

OUTSIDE_S = 12.0
"""Seconds reserved for work outside the training loop: imports, the last files, the report."""
FOLD_S = 14.0
"""Seconds that a fold after a run takes in addition to its steps: reading, features, evaluation."""
EVALUATION_MARGIN = 1.3
"""Factor on the expected time of the final evaluation."""
STEP_OVERHEAD = 1.1
"""Time per step in the training loop, relative to a measured step; evaluations and checkpoints make the difference."""
EVALUATION_SPEEDUP = 3.0
"""Images per second in evaluation relative to training, until measured: a backward pass costs two forward passes."""
FEATURE_SHARE = 0.1
"""Share of a budget that the features for the first head on pretrained weights may take."""
HEAD_SHARE = 0.05
"""Share of a budget that choosing between blocks and fitting heads to the features may take after that."""
FAMILIAR_SHARE = 0.015
"""Share of a budget in which the trained model may find out how to recognize images unlike the training images."""
MOST_FAMILIAR = {"train": 2_000, "val": 1_000, "test": 500}
"""Images of each split that it sees for that."""
LEAST_FAMILIAR = 19
"""Validation images below which none could exceed the 95th percentile: i of m exceeds i / (m + 1) of new images."""


@dataclass(frozen=True)
class Pace:
    """Measured time of training steps over a run; it changes where images grow or layers are unfrozen.

    Attributes:
        stretches: (start, end, seconds per step). Start and end are progress; the stretches cover 0 to 1 without gaps.
        before_s: Seconds that the teacher takes before the first step.
    """

    stretches: tuple[tuple[float, float, float], ...] = ((0.0, 1.0, 1.0),)
    before_s: float = 0.0

    def mean_s(self, start: float = 0.0, end: float = 1.0) -> float:
        """Return the mean seconds per step between two values of progress; if they are equal, those at that point."""
        overlaps = [(max(0.0, min(end, to) - max(start, since)), step_s) for since, to, step_s in self.stretches]
        total = sum(overlap for overlap, _ in overlaps)
        if total <= 0:
            return next(step_s for _, to, step_s in self.stretches if start < to or to == 1)
        return sum(overlap * step_s for overlap, step_s in overlaps) / total


@dataclass(frozen=True)
class TimeLimit:
    """Wall-clock seconds for a whole run, some of which are reserved for work other than training steps.

    Attributes:
        limit_s: Seconds for everything, from reading the data to the saved model.
        reserve_s: Seconds of the limit reserved for what follows the last step: evaluation, saving, the report.
        familiar_share: Share of the images `MOST_FAMILIAR` that there is time for.
    """

    limit_s: float
    reserve_s: float
    familiar_share: float = 1.0

    def training_s(self, elapsed_s: float = 0.0) -> float:
        """Return the seconds left for training steps once `elapsed_s` seconds of the limit are spent; at least 0."""
        return max(0.0, self.limit_s - self.reserve_s - elapsed_s)


def time_limit(
    budget_s: float, facts: DataFacts, evaluation_images_per_s: float, *, is_trained: bool = True
) -> TimeLimit:
    """Return the time limit of a run with a budget, which evaluates its validation and test images at the end.

    If steps are taken (`is_trained`), validation scores both the weights and their average.
    """
    evaluated = (1 + is_trained) * facts.num_val + facts.num_test
    seen = {"train": facts.num_train, "val": facts.num_val, "test": facts.num_test}
    seen = {split: min(count, MOST_FAMILIAR[split]) for split, count in seen.items()}
    # Only one process sees these, and almost 400 outliers.
    familiar_s = EVALUATION_MARGIN * (sum(seen.values()) + 400) * processes.count() / evaluation_images_per_s
    share = min(1.0, FAMILIAR_SHARE * budget_s / max(familiar_s, 1e-9))
    share = share if share * seen["val"] >= LEAST_FAMILIAR else 0.0
    reserve_s = OUTSIDE_S + EVALUATION_MARGIN * evaluated / evaluation_images_per_s + share * familiar_s
    return TimeLimit(budget_s, reserve_s, share)
