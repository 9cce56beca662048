"""Step number -> progress of the run in [0, 1], also when the number of steps is revised during the run.

Schedules are functions of progress. A run with a time budget measures how long its steps take, and then revises its
last step. Progress never jumps: it continues from its present value, only faster or slower.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Horizon:
    """A straight line of progress, from `start_progress` at `start_step` to 1 at `end_step`.

    The run ends after `end_step` steps; the last revision was at `start_step`.
    """

    end_step: int
    start_step: int = 0
    start_progress: float = 0.0

    def progress(self, step: int) -> float:
        """Return the share of the run that is done after `step` steps, in [0, 1]."""
        num_steps = self.end_step - self.start_step
        if step >= self.end_step or num_steps <= 0:
            return 1.0
        return self.start_progress + (1 - self.start_progress) * (step - self.start_step) / num_steps

    def revised(self, step: int, *, steps_left: int) -> "Horizon":
        """Return a horizon with the same progress at `step` that ends `steps_left` steps later (at least 0)."""
        return replace(self, end_step=step + max(0, steps_left), start_step=step, start_progress=self.progress(step))
