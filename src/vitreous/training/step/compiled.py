"""A model, a wish -> the same model as compiled code, which shares its weights; and what compiling takes."""

import os
import shutil
import time
from typing import cast

import torch
from einops import rearrange
from torch import nn

from vitreous.data.loader import Batch
from vitreous.errors import ConfigError
from vitreous.recipe.run_config import Compile
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, backward

_COMPILERS = (os.environ.get("CXX", "g++"), "g++", "clang++")


def check_compiler(mode: Compile, device: torch.device) -> None:
    """Raise ConfigError where something shall be compiled for a CPU, whose code is C++, and there is no compiler."""
    if mode != "none" and device.type == "cpu" and not any(map(shutil.which, _COMPILERS)):
        raise ConfigError(
            f"train.compile={mode}: found no C++ compiler ({', '.join(_COMPILERS)}); install one, set CXX to where it "
            "is, or use train.compile=none"
        )


def compile_model(model: nn.Module, mode: Compile) -> nn.Module | None:
    """What a training step calls instead of the model; None where nothing shall be compiled.

    The model itself stays as it is: what reads inside it, scores it or saves it finds no compiled code in its way.

    Raises:
        ConfigError: There is no compiler; see `check_compiler`.
    """
    check_compiler(mode, next(model.parameters()).device)
    if mode == "none":
        return None
    # Of each new type einops notes that it is a tensor's; were that to happen in the first step, the second would find
    # something changed, and compile all again.
    for kind in (torch.empty(1), nn.Parameter(torch.empty(1))):
        rearrange(kind, "one -> one")
    return cast("nn.Module", torch.compile(model, mode=mode))


def compile_ahead(state: TrainState, batch: Batch, settings: StepSettings) -> float:
    """Run a batch forward and backward, and change nothing: the first steps need not wait then.

    A second time without its last image: batches differ by one, and the code for that is the code for any number.

    Returns:
        Seconds that it took.
    """
    began_s = time.monotonic()
    for num in (len(batch.images), max(1, len(batch.images) - 1)):
        backward(state, batch.images[:num], batch.labels[:num], settings)
        state.optimizer.zero_grad(set_to_none=True)
    return time.monotonic() - began_s
