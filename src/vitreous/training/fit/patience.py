"""Validation scores -> early stopping: when to evaluate, when to stop, and which weights were the best."""

import copy
import math
from collections.abc import Mapping

import torch
from safetensors.torch import save

from vitreous import atomic
from vitreous.model.vit import VisionTransformer
from vitreous.tensor_file import open_tensor_file
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.distributed import SINGLE, Group
from vitreous.training.machine.parallel import full_tensor
from vitreous.training.step.state import TrainState

_LEAST_EVALUATIONS = 12
"""Number of evaluations in a run with a long patience; a short patience needs more."""


def is_due(before: float, after: float, patience: float) -> bool:
    """Return True if an evaluation is due between two progress values.

    Evaluations are due at fixed progress values, so a resumed run evaluates at the same steps.

    Args:
        before: Progress before a step, in [0, 1].
        after: Progress after it.
        patience: Share of the run; at least two evaluations fall into it.
    """
    num = max(_LEAST_EVALUATIONS, math.ceil(2 / patience))
    return int(after * num + 1e-9) > int(before * num + 1e-9)


def keep_best(state: TrainState, scores: Mapping[str, Score], folder: RunFolder, group: Group = SINGLE) -> None:
    """Save the weights, and note their loss and progress in the state, if their validation loss is the best so far.

    Args:
        state: The state that was evaluated.
        scores: Scores by `trained` (the weights) and `average` (their moving average).
        folder: The run folder. Raises SaveError if it cannot be written.
        group: The processes that train.
    """
    better = min(scores, key=lambda name: scores[name].loss)
    if scores[better].loss < state.best_loss:
        state.best_loss, state.best_progress = scores[better].loss, state.progress
        model = state.ema.model if better == "average" else state.model
        tensors = {name: full_tensor(tensor.detach()).cpu().contiguous() for name, tensor in model.state_dict().items()}
        group.from_first(lambda: atomic.write_bytes(folder.best, save(tensors)))


def is_over(state: TrainState, patience: float) -> bool:
    """Return True if the validation loss has not improved for longer than the patience."""
    return state.progress - state.best_progress > patience - 1e-6  # tolerates rounding errors of progress


def best_model(state: TrainState, folder: RunFolder) -> VisionTransformer | None:
    """Return the model with the weights of the best evaluation; None if none were saved."""
    if not folder.best.is_file():
        return None
    model = copy.deepcopy(state.ema.model)
    with open_tensor_file(folder.best, way_out="delete it to use the last weights instead") as file:
        weights = file.read_all()
    with torch.no_grad():
        model.load_state_dict(weights)
    return model
