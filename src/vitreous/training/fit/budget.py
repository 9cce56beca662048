"""Seconds left, seconds a step takes -> steps left: how a run ends on time on a machine whose speed changes."""

import time
from collections import deque
from dataclasses import dataclass, field

from vitreous.training.step.state import TrainState

REVISE_EVERY = 0.04
"""Share of progress, or of the time, between two revisions of the horizon: whichever is over first."""
REMEMBERED = 6
"""Revisions that the time of a step is measured over: enough to even out noise, few enough to follow the machine."""


class Stopwatch:
    """Seconds spent on a run, over all processes that worked on it.

    Args:
        elapsed_s: Spent before this process.
        started: `time.monotonic()` at which this process began.
    """

    def __init__(self, elapsed_s: float, started: float) -> None:
        self._zero = started - elapsed_s

    def elapsed_s(self) -> float:
        """Seconds until now."""
        return time.monotonic() - self._zero


@dataclass(frozen=True)
class Pace:
    """What a step costs over the run, where images grow or parts are let go; measured on a throw-away model.

    Attributes:
        stretches: (from, to, seconds a step) by progress, from 0 to 1 without gaps.
    """

    stretches: tuple[tuple[float, float, float], ...] = ((0.0, 1.0, 1.0),)

    def mean_s(self, start: float, end: float) -> float:
        """Mean seconds of the steps between two marks of progress; of one step, where both are the same."""
        shared = [(max(0.0, min(end, to) - max(start, of)), step_s) for of, to, step_s in self.stretches]
        total = sum(share for share, _ in shared)
        if total <= 0:
            return next(step_s for _, to, step_s in self.stretches if start < to or to == 1)
        return sum(share * step_s for share, step_s in shared) / total


@dataclass
class Budget:
    """Keeps the horizon of a run where its time ends.

    Attributes:
        stopwatch: Seconds spent.
        limit_s: Seconds for everything.
        reserve_s: Of these, seconds kept for what follows the last step: evaluation, saving, report.
        max_steps: The run is never longer than this, however much time there is.
        pace: What steps cost relative to each other; what they really cost is measured on the way.
    """

    stopwatch: Stopwatch
    limit_s: float
    reserve_s: float
    max_steps: int
    pace: Pace = field(default_factory=Pace)
    _marks: deque[tuple[float, int, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED), init=False)
    _revised_at: float = field(default=0.0, init=False)

    def steps_left(self, step: int, step_s: float) -> int:
        """How many more steps fit when one takes `step_s`, all told."""
        left_s = self.limit_s - self.reserve_s - self.stopwatch.elapsed_s()
        return max(1, min(self.max_steps - step, int(left_s / step_s)))

    def revise(self, state: TrainState) -> bool:
        """Move the end of the run to where the time ends, if progress or the clock calls for it; True where it moved.

        A step's time is measured over everything since a few revisions ago, evaluations and checkpoints included: they
        will go on taking their share. Once the time is up, the next step is the last.
        """
        if not self._marks:
            self._marks.append((self.stopwatch.elapsed_s(), state.step, state.progress))
            self._revised_at = state.progress
        began_s, began_step, began_at = self._marks[0]
        elapsed_s, num_steps = self.stopwatch.elapsed_s(), state.step - began_step
        is_late = elapsed_s >= self._marks[-1][0] + REVISE_EVERY * self.limit_s
        is_due = num_steps > 0 and (state.progress >= self._revised_at + REVISE_EVERY or is_late)
        is_overdue = elapsed_s >= self.limit_s - self.reserve_s
        if state.step >= state.horizon.end_step or not (is_due or is_overdue):
            return False
        step_s = max(elapsed_s - began_s, 1e-9) / max(1, num_steps)
        step_s *= self.pace.mean_s(state.progress, 1.0) / self.pace.mean_s(began_at, state.progress)
        self._revised_at = state.progress
        self._marks.append((elapsed_s, state.step, state.progress))
        revised = state.horizon.revised(state.step, steps_left=self.steps_left(state.step, step_s))
        if revised.end_step == state.horizon.end_step:
            return False  # the same line to the same end; other processes, which hear of moves alone, keep theirs too
        state.horizon = revised
        return True
