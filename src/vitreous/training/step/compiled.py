"""Model, compile mode -> the model as compiled code (torch.compile), and the seconds that compiling takes."""

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
    """Raise ConfigError if the model is to be compiled for a CPU and there is no C++ compiler."""
    if mode != "none" and device.type == "cpu" and not any(map(shutil.which, _COMPILERS)):
        raise ConfigError(
            f"train.compile={mode}: found no C++ compiler ({', '.join(_COMPILERS)}); install one, set the environment "
            "variable CXX to its path, or use train.compile=none"
        )


def compile_model(model: nn.Module, mode: Compile) -> nn.Module | None:
    """Return a compiled module for training steps, which shares the model's weights; None if `mode` is `none`.

    The model itself is not changed. Evaluation, saving and taps use it without compiled code.

    Raises:
        ConfigError: There is no compiler; see `check_compiler`.
    """
    check_compiler(mode, next(model.parameters()).device)
    if mode == "none":
        return None
    # einops caches each tensor type it sees. Fill the cache now, or the second step would recompile.
    for tensor in (torch.empty(1), nn.Parameter(torch.empty(1))):
        rearrange(tensor, "one -> one")
    return cast("nn.Module", torch.compile(model, mode=mode))


def compile_ahead(state: TrainState, batch: Batch, settings: StepSettings) -> float:
    """Run forward and backward without changing the state, so that the first steps do not wait for the compiler.

    A second pass leaves out the last image: batch sizes differ by one, and torch compiles code for any batch size when
    it sees the second one. Return the seconds that this took.
    """
    began_s = time.monotonic()
    for num in (len(batch.images), max(1, len(batch.images) - 1)):
        backward(state, batch.images[:num], batch.labels[:num], settings)
        state.optimizer.zero_grad(set_to_none=True)
    return time.monotonic() - began_s
