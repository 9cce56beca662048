"""Progress of a run -> early stopping: when to evaluate and when to stop."""

import math

from vitreous.training.step.state import TrainState

_LEAST_EVALUATIONS = 12
"""Number of evaluations in a run with a long patience; a short patience needs more."""


def is_due(before: float, after: float, patience: float) -> bool:
    """Return True if an evaluation is due between two progress values.

    Evaluations are due at fixed progress values, so a resumed run evaluates at the same steps. The patience is a share
    of the run, into which at least two evaluations fall.
    """
    num = max(_LEAST_EVALUATIONS, math.ceil(2 / patience))
    return int(after * num + 1e-9) > int(before * num + 1e-9)


def is_over(state: TrainState, patience: float) -> bool:
    """Return True if the validation loss has not improved for longer than the patience."""
    return state.progress - state.best_progress > patience - 1e-6  # tolerates rounding errors of progress
