"""Steps and seconds -> progress of a run in [0, 1], and where it ends.

A schedule is a function of progress. A run with a budget in seconds revises how many steps it has left as it learns how
long they take on this machine today; progress goes on smoothly from where it stands, only its pace changes.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Horizon:
    """Progress grows linearly from `start_progress` at `start_step` to 1 at `end_step`.

    Attributes:
        end_step: The run ends when this many steps are taken.
        start_step: Step of the last revision.
        start_progress: Progress at that step, in [0, 1].
    """

    end_step: int
    start_step: int = 0
    start_progress: float = 0.0

    def progress(self, step: int) -> float:
        """Share of the run behind us once `step` steps are taken, in [0, 1]."""
        ahead = self.end_step - self.start_step
        if step >= self.end_step or ahead <= 0:
            return 1.0
        return self.start_progress + (1 - self.start_progress) * (step - self.start_step) / ahead

    def revised(self, step: int, *, steps_left: int) -> "Horizon":
        """The same progress at `step`, the end moved to `steps_left` steps from there (at least one)."""
        return replace(self, end_step=step + max(1, steps_left), start_step=step, start_progress=self.progress(step))
