"""Seconds left, seconds per step -> steps left: a run ends on time even if the speed of the machine changes."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.pace import FEATURE_SHARE, HEAD_SHARE, OUTSIDE_S, STEP_OVERHEAD, Pace, TimeLimit, time_limit
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.distributed import Group
from vitreous.training.step.state import TrainState

REVISE_EVERY = 0.04
"""Fraction of progress, or of the time limit, between two revisions of the horizon: whichever passes first."""
REMEMBERED = 6
"""Number of past revisions over which the time per step is measured: enough to average noise, few enough to adapt."""
UNLABELED_SHARE = 0.05
"""Largest share of a budget that a run without labels reserves, which evaluates only few images at its end."""


def run_limit(
    config: RunConfig, facts: DataFacts, images_per_s: Callable[[RunConfig], float], group: Group
) -> TimeLimit | None:
    """Return the time limit of a run with a budget, in the first process; else None.

    `images_per_s` measures the speed of the final evaluation.
    """
    if not (group.is_first and config.train.budget_s):
        return None
    if not config.objective.uses_labels:
        return TimeLimit(config.train.budget_s, min(OUTSIDE_S, UNLABELED_SHARE * config.train.budget_s))
    return time_limit(config.train.budget_s, facts, images_per_s(config), is_trained=config.train.epochs > 0)


def time_for_features(
    limit: TimeLimit | None, started_s: float, clock: Callable[[], float], config: RunConfig
) -> Callable[[], float]:
    """Return a function that returns how many seconds are left for the features of pretrained weights."""
    if limit is None:
        return lambda: math.inf
    until_s = started_s + limit.training_s() - HEAD_SHARE * limit.limit_s
    if config.train.epochs:
        until_s = min(until_s, clock() + FEATURE_SHARE * limit.limit_s)
    return lambda: until_s - clock()


class Stopwatch:
    """Seconds spent on a run, including those of earlier processes that worked on it. They never decrease.

    `started_s` is the reading of `clock` when this process started.
    """

    def __init__(self, elapsed_s: float, started_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._zero_s = started_s - elapsed_s
        self._clock = clock
        self._last_s = started_s

    def elapsed_s(self) -> float:
        """Return the seconds spent until now."""
        now_s = self._clock()
        # The clock of a virtual machine can go back. Without a correction, the next checkpoint and the end would wait.
        self._zero_s -= max(0.0, self._last_s - now_s)
        self._last_s = now_s
        return now_s - self._zero_s


@dataclass
class Budget:
    """A time limit that moves the last step of a run to the moment at which its time is up.

    Attributes:
        limit: Seconds for the whole run and for what follows the last step.
        max_steps: Upper limit on the number of steps, however much time there is.
        pace: How the cost of a step changes over the run; what a step really costs is measured during the run.
        least_steps: Steps that are taken even if they do not fit; 0 if there is a model without any step.
    """

    limit: TimeLimit
    max_steps: int
    pace: Pace = field(default_factory=Pace)
    least_steps: int = 1
    _marks: deque[tuple[float, int, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED), init=False)
    _revised_at: float = field(default=0.0, init=False)

    def begin(self, state: TrainState, elapsed_s: float) -> None:
        """Set the horizon of `state` from the pace, before any step of this process has been measured."""
        step_s = STEP_OVERHEAD * self.pace.mean_s(state.progress, 1.0)
        state.horizon = state.horizon.revised(state.step, steps_left=self.steps_left(state.step, step_s, elapsed_s))

    def steps_left(self, step: int, step_s: float, elapsed_s: float) -> int:
        """Return how many steps of `step_s` seconds fit after `step` steps and `elapsed_s` seconds."""
        fitting = min(self.max_steps - step, int(self.limit.training_s(elapsed_s) / step_s))
        return max(fitting, self.least_steps - step, 0)

    def revise(self, state: TrainState) -> bool:
        """Move the horizon of `state` to where the time is up, if a revision is due. Return True if it moved.

        The time per step is averaged over the last few revisions. It includes evaluations and checkpoints, which will
        keep taking their share. A step that does not fit into the rest of the time is not begun.
        """
        elapsed_s = state.elapsed_s
        if not self._marks:
            self._marks.append((elapsed_s, state.step, state.progress))
            self._revised_at = state.progress
        began_s, began_step, began_at = self._marks[0]
        num_steps = state.step - began_step
        is_late = elapsed_s >= self._marks[-1][0] + REVISE_EVERY * self.limit.limit_s
        is_due = num_steps > 0 and (state.progress >= self._revised_at + REVISE_EVERY or is_late)
        is_overdue = self.limit.training_s(elapsed_s) == 0
        if state.step >= state.horizon.end_step or not (is_due or is_overdue):
            return False
        step_s = max(elapsed_s - began_s, 1e-9) / max(1, num_steps)
        step_s *= self.pace.mean_s(state.progress, 1.0) / self.pace.mean_s(began_at, state.progress)
        self._revised_at = state.progress
        self._marks.append((elapsed_s, state.step, state.progress))
        revised = state.horizon.revised(state.step, steps_left=self.steps_left(state.step, step_s, elapsed_s))
        if revised.end_step == state.horizon.end_step:
            # Other processes only receive horizons that moved, so an equal one must not replace the present one here.
            return False
        state.horizon = revised
        return True
