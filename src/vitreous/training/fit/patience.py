"""Scores on validation images -> whether a run goes on, and the weights that were best where it does not."""

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
from vitreous.training.machine.distributed import ALONE, Group
from vitreous.training.machine.parallel import whole
from vitreous.training.step.state import TrainState

_LEAST_EVALUATIONS = 12


def is_due(before: float, after: float, patience: float) -> bool:
    """Whether an evaluation falls between two marks of progress: on a fixed grid, so that a resumed run finds it again.

    Args:
        before: Progress before a step.
        after: Progress after it.
        patience: Share of the run; at least two evaluations fall into it.
    """
    num = max(_LEAST_EVALUATIONS, math.ceil(2 / patience))
    return int(after * num + 1e-9) > int(before * num + 1e-9)


def note(state: TrainState, scores: Mapping[str, Score], folder: RunFolder, group: Group = ALONE) -> None:
    """Keep loss, progress and weights of the best evaluation so far. Raises SaveError where they cannot be written."""
    better = min(scores, key=lambda name: scores[name].loss)
    if scores[better].loss < state.best_loss:
        state.best_loss, state.best_progress = scores[better].loss, state.progress
        model = state.ema.model if better == "average" else state.model
        tensors = {name: whole(tensor.detach()).cpu().contiguous() for name, tensor in model.state_dict().items()}
        group.first(lambda: atomic.write_bytes(folder.best, save(tensors)))


def is_over(state: TrainState, patience: float) -> bool:
    """Whether nothing got better for longer than the patience, give or take rounding."""
    return state.progress - state.best_progress > patience - 1e-6


def best_model(state: TrainState, folder: RunFolder) -> VisionTransformer | None:
    """The model with the weights of the best evaluation; None where none were kept."""
    if not folder.best.is_file():
        return None
    model = copy.deepcopy(state.ema.model)
    with open_tensor_file(folder.best, way_out="delete it to use the last weights instead") as file:
        kept = file.read_all()
    with torch.no_grad():
        model.load_state_dict(kept)
    return model
