"""A run's batches -> its steps, one after another; a device has the next one to do while the last one is read."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from vitreous.data.loader import Batch
from vitreous.training.machine.parallel import is_divided
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import (
    Gradient,
    StepResult,
    StepSettings,
    average,
    find_gradient,
    follow,
    train_step,
)


@dataclass(frozen=True)
class Taken:
    """A step that was taken, or refused.

    Attributes:
        batch: That it followed.
        result: What it did.
        wait_s: Seconds until the batch was there.
    """

    batch: Batch
    result: StepResult
    wait_s: float


@dataclass(frozen=True)
class _Asked:
    """A gradient that a device was asked for, and all that it depends on beside the weights."""

    place: tuple[int, int, Horizon]
    batch: Batch
    gradient: Gradient
    wait_s: float


class Steps:
    """Takes steps as `train_step` does: the same weights, the same refusals, bit for bit.

    A device computes on its own. If the host reads what became of a step before it says what comes next, the device
    has nothing to do in between; with a small model that is much of the time. So where this *runs ahead*, the host asks
    for the next batch's gradient first, then reads. The device itself leaves weights and moments as they are where the
    step is not finite; when the host learns of it, it drops the gradient that came of the next batch.

    Args:
        settings: Of the steps.
        batch: (step, attempt) -> batch.
        runs_ahead: Whether one gradient is always under way; see `can_run_ahead`.
    """

    def __init__(self, settings: StepSettings, batch: Callable[[int, int], Batch], *, runs_ahead: bool) -> None:
        self._settings = settings
        self._batch = batch
        self._runs_ahead = runs_ahead
        self._next: _Asked | None = None

    def take(self, state: TrainState) -> Taken:
        """The step that `state` stands before; whoever calls counts it."""
        if not self._runs_ahead:
            batch, wait_s = self._wait(state)
            return Taken(batch, train_step(state, batch.images, batch.labels, self._settings), wait_s)
        asked = self._asked(state)
        _follow_if_finite(state, asked.gradient)
        state.optimizer.zero_grad(set_to_none=True)
        following = replace(state, step=state.step + 1, attempt=0)
        self._next = self._ask(following) if following.step < state.horizon.end_step else None
        result = asked.gradient.result()
        if result.applied:
            # The next gradient was taken at these weights; nothing has moved them since.
            average(state, self._settings.optim)
        else:
            self.drop(state)
        return Taken(asked.batch, result, asked.wait_s)

    def _asked(self, state: TrainState) -> _Asked:
        """The gradient that is under way; another one, of the same batch if it can be, where the run went elsewhere."""
        known = self._next
        if known is not None and known.place == _place(state):
            return known
        self.drop(state)
        is_same = known is not None and known.place[:2] == (state.step, state.attempt)
        return self._ask(state, known if is_same else None)

    def _ask(self, state: TrainState, known: _Asked | None = None) -> _Asked:
        batch, wait_s = self._wait(state) if known is None else (known.batch, known.wait_s)
        return _Asked(_place(state), batch, find_gradient(state, batch.images, batch.labels, self._settings), wait_s)

    def drop(self, state: TrainState) -> None:
        """Forget the gradient that is under way."""
        self._next = None
        state.optimizer.zero_grad(set_to_none=True)

    def _wait(self, state: TrainState) -> tuple[Batch, float]:
        began_s = time.monotonic()
        return self._batch(state.step, state.attempt), time.monotonic() - began_s


def can_run_ahead(state: TrainState) -> bool:
    """Whether the device computes on its own, and the optimiser can leave a step out without being told by the host."""
    weight = next(state.model.parameters())
    return weight.is_cuda and type(state.optimizer) is torch.optim.AdamW and not is_divided(weight)


def _follow_if_finite(state: TrainState, gradient: Gradient) -> None:
    """Let the device decide: fused AdamW leaves everything as it is where it is told that it `found_inf`."""
    optimizer: Any = state.optimizer
    optimizer.found_inf = (~gradient.is_finite).float()
    follow(state, gradient)
    del optimizer.found_inf


def _place(state: TrainState) -> tuple[int, int, Horizon]:
    return state.step, state.attempt, state.horizon
