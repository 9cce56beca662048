"""Batches -> training steps, one after another; a GPU gets the next batch before the host reads the last result."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from vitreous.data.loader import Batch
from vitreous.training.machine.parallel import is_sharded
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import (
    Gradient,
    StepResult,
    StepSettings,
    apply_gradient,
    compute_gradient,
    train_step,
    update_average,
)


@dataclass(frozen=True)
class TakenStep:
    """A step that was applied or rejected, its batch, and the seconds that it waited for the batch."""

    batch: Batch
    result: StepResult
    wait_s: float


@dataclass(frozen=True)
class _Pending:
    """A queued gradient, and what it depends on besides the weights: batch, step, attempt and horizon (the key)."""

    key: tuple[int, int, Horizon]
    batch: Batch
    gradient: Gradient
    wait_s: float


class Steps:
    """Steps that are the same as those of `train_step`: the same weights and the same rejections, bit for bit.

    A GPU works through a queue. If the host reads the result of a step before it queues the next one, the GPU is idle
    in between; for a small model this is much of the time. When *running ahead*, the host first queues the gradient of
    the next batch, and only then reads the last result. The GPU itself leaves weights and moments unchanged if the step
    is not finite. When the host learns of that, it discards the gradient of the next batch. `batch` takes (step,
    attempt). Without `runs_ahead`, no gradient is kept in the queue; see `can_run_ahead`.
    """

    def __init__(self, settings: StepSettings, batch: Callable[[int, int], Batch], *, runs_ahead: bool) -> None:
        self._settings = settings
        self._batch = batch
        self._runs_ahead = runs_ahead
        self._pending: _Pending | None = None

    def take(self, state: TrainState) -> TakenStep:
        """Take step number `state.step`. The caller then updates `state.step` and `state.attempt`."""
        if not self._runs_ahead:
            batch, wait_s = self._wait_for_batch(state)
            result = train_step(state, batch.images, batch.labels, self._settings)
            return TakenStep(batch=batch, result=result, wait_s=wait_s)
        current = self._current(state)
        _apply_if_finite(state, current.gradient)
        state.optimizer.zero_grad(set_to_none=True)
        following = replace(state, step=state.step + 1, attempt=0)
        self._pending = self._queue(following) if following.step < state.horizon.end_step else None
        result = current.gradient.result()
        if result.applied:
            # The weights are still those of this step: computing the next gradient does not change them.
            update_average(state, self._settings.optim)
        else:
            self.discard(state)
        return TakenStep(batch=current.batch, result=result, wait_s=current.wait_s)

    def discard(self, state: TrainState) -> None:
        """Discard the queued gradient, if there is one."""
        self._pending = None
        state.optimizer.zero_grad(set_to_none=True)

    def _current(self, state: TrainState) -> _Pending:
        """Return the queued gradient; compute another one if step, attempt or horizon are not what was expected."""
        pending = self._pending
        if pending is not None and pending.key == _key(state):
            return pending
        self.discard(state)
        has_batch = pending is not None and pending.key[:2] == (state.step, state.attempt)
        return self._queue(state, pending if has_batch else None)

    def _queue(self, state: TrainState, known: _Pending | None = None) -> _Pending:
        """Ask the device for the gradient of the state's next step, with the batch of `known` if it is given."""
        batch, wait_s = self._wait_for_batch(state) if known is None else (known.batch, known.wait_s)
        gradient = compute_gradient(state, batch.images, batch.labels, self._settings)
        return _Pending(key=_key(state), batch=batch, gradient=gradient, wait_s=wait_s)

    def _wait_for_batch(self, state: TrainState) -> tuple[Batch, float]:
        began_s = time.monotonic()
        return self._batch(state.step, state.attempt), time.monotonic() - began_s


def can_run_ahead(state: TrainState) -> bool:
    """Return True for a model on a GPU, not sharded, with AdamW, which can skip an update without asking the host."""
    weight = next(state.model.parameters())
    return weight.is_cuda and type(state.optimizer) is torch.optim.AdamW and not is_sharded(weight)


def _apply_if_finite(state: TrainState, gradient: Gradient) -> None:
    """Let the device decide: fused AdamW skips the update where its attribute `found_inf` is 1."""
    optimizer: Any = state.optimizer
    optimizer.found_inf = (~gradient.is_finite).float()
    apply_gradient(state, gradient)
    del optimizer.found_inf


def _key(state: TrainState) -> tuple[int, int, Horizon]:
    return state.step, state.attempt, state.horizon
