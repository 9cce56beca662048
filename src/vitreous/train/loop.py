"""TrainState at some step -> TrainState at the last: the cadence of steps, records, evaluations and checkpoints."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vitreous.data.loader import Batch
from vitreous.errors import NonFiniteError
from vitreous.train.budget import Budget, Stopwatch
from vitreous.train.checkpoint import load_newest, save_checkpoint
from vitreous.train.evaluate import Score
from vitreous.train.records import Recorder
from vitreous.train.run_folder import RunFolder
from vitreous.train.signals import Interrupted, StopWish, listen_for_stop
from vitreous.train.state import TrainState
from vitreous.train.step import StepResult, StepSettings, find_non_finite, train_step

RECORDS_PER_RUN = 200
EVALUATIONS_PER_RUN = 12
EVALUATION_SHARE = 0.025
"""Evaluations on the way come less often where they would take more than this share of the time."""


@dataclass
class Loop:
    """What the loop works with.

    Attributes:
        folder: Where checkpoints go.
        recorder: Where records go.
        stopwatch: Seconds spent on the run.
        budget: Where the time is limited, what keeps the horizon.
        batch: (step, attempt) -> batch.
        steps_per_epoch: To say epochs rather than steps.
        evaluate: Scores the present model and its average on validation images; None where there are none.
        checkpoint_every_s: Seconds between checkpoints.
        max_retries: Bound on consecutive refusals of a step, and on returns to a checkpoint.
    """

    folder: RunFolder
    recorder: Recorder
    stopwatch: Stopwatch
    budget: Budget | None
    batch: Callable[[int, int], Batch]
    steps_per_epoch: float
    evaluate: Callable[[], dict[str, Score]] | None
    checkpoint_every_s: float
    max_retries: int


@dataclass
class _Since:
    """Sums since the last record, and when each thing was last done."""

    steps: int = 0
    images: int = 0
    correct: int = 0
    loss: float = 0.0
    wait_s: float = 0.0
    began_s: float = field(default_factory=time.monotonic)

    def add(self, result: StepResult, num_images: int, wait_s: float) -> None:
        self.steps += 1
        self.images += num_images
        self.correct += result.correct
        self.loss += result.loss
        self.wait_s += wait_s


def fit(state: TrainState, settings: StepSettings, loop: Loop) -> None:
    """Take steps until the horizon, in place.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
        NonFiniteError: Steps stayed NaN or infinite after all retries; the last good state is saved.
        SaveError: A checkpoint or record could not be written; the earlier ones are whole.
    """
    if state.step == 0:
        save_checkpoint(loop.folder.checkpoints, state)
    since, saved_s = _Since(), time.monotonic()
    evaluated_at, evaluation_every = state.progress, 1 / EVALUATIONS_PER_RUN
    with listen_for_stop() as stop:
        while state.step < state.horizon.end_step:
            began_s = time.monotonic()
            batch = loop.batch(state.step, state.attempt)
            wait_s = time.monotonic() - began_s
            result = train_step(state, batch.images, batch.labels, settings)
            state.elapsed_s = loop.stopwatch.elapsed_s()
            if result.applied:
                state.step, state.attempt = state.step + 1, 0
                since.add(result, len(batch.labels), wait_s)
                since = _tell(state, result, since, loop)
            else:
                _refuse(state, batch, result, settings, loop)
            if loop.budget and loop.budget.revise(state):
                loop.recorder.record("horizon", {"step": state.step, "end_step": state.horizon.end_step})
            if loop.evaluate and state.progress >= evaluated_at + evaluation_every and state.progress < 1:
                cost_s = _evaluate(state, loop)
                evaluated_at = state.progress
                evaluation_every = max(1 / EVALUATIONS_PER_RUN, _affordable(state, cost_s))
            if time.monotonic() - saved_s >= loop.checkpoint_every_s or stop.signal_number:
                _save(state, loop, stop)
                saved_s = time.monotonic()
    save_checkpoint(loop.folder.checkpoints, state)


def _tell(state: TrainState, result: StepResult, since: _Since, loop: Loop) -> _Since:
    """Show the step; write a record where one is due and begin new sums."""
    seconds = max(time.monotonic() - since.began_s, 1e-9)
    fields = {
        "step": state.step,
        "end_step": state.horizon.end_step,
        "epoch": round(state.step / loop.steps_per_epoch, 4),
        "progress": round(state.progress, 6),
        "loss": since.loss / since.steps,
        "accuracy": since.correct / since.images,
        "grad_norm": result.grad_norm,
        "lr": result.lr,
        "images_per_s": round(since.images / seconds, 1),
        "data_wait_share": round(since.wait_s / seconds, 4),
        "elapsed_s": round(state.elapsed_s, 2),
    }
    if since.steps < max(1, state.horizon.end_step // RECORDS_PER_RUN) and state.step < state.horizon.end_step:
        loop.recorder.show("progress", fields)
        return since
    loop.recorder.record("step", fields)
    return _Since()


def _refuse(state: TrainState, batch: Batch, result: StepResult, settings: StepSettings, loop: Loop) -> None:
    """Try the step again with new draws; after `max_retries`, go back to the last checkpoint with half the rate."""
    cause = find_non_finite(state, batch.images, batch.labels, settings)
    state.refused += 1
    state.attempt += 1
    fields = {"step": state.step, "attempt": state.attempt, "loss": result.loss, "grad_norm": result.grad_norm}
    loop.recorder.record("refused", {**fields, "cause": cause})
    if state.attempt <= loop.max_retries:
        return
    if state.rollbacks >= loop.max_retries:
        state.attempt = 0
        save_checkpoint(loop.folder.checkpoints, state)
        raise NonFiniteError(
            f"step={state.step}: {cause} is not finite, also after {state.rollbacks} returns to a checkpoint with half "
            f"the learning rate each; lower optim.lr, or look at the images of the last batches"
        )
    rollbacks, lr_scale, refused, elapsed_s = state.rollbacks + 1, state.lr_scale / 2, state.refused, state.elapsed_s
    path, damaged = load_newest(loop.folder.checkpoints, state)
    for reason in damaged:
        loop.recorder.record("damaged_checkpoint", {"reason": reason})
    state.rollbacks, state.lr_scale, state.refused, state.elapsed_s = rollbacks, lr_scale, refused, elapsed_s
    state.attempt = 0
    save_checkpoint(loop.folder.checkpoints, state)
    back = {"step": state.step, "checkpoint": path.name if path else "", "lr_scale": lr_scale, "cause": cause}
    loop.recorder.record("rollback", back)


def _evaluate(state: TrainState, loop: Loop) -> float:
    """Record the scores on validation images; returns the seconds it took."""
    began_s = time.monotonic()
    scores = loop.evaluate() if loop.evaluate else {}
    epoch = round(state.step / loop.steps_per_epoch, 4)
    for weights, found in scores.items():
        loop.recorder.record("evaluation", {"step": state.step, "epoch": epoch, "weights": weights, **found.as_dict()})
    return time.monotonic() - began_s


def _affordable(state: TrainState, cost_s: float) -> float:
    """Progress between evaluations that keeps them within their share of the time."""
    run_s = state.elapsed_s / max(state.progress, 1e-6)
    return min(0.5, cost_s / (EVALUATION_SHARE * max(run_s, 1e-6)))


def _save(state: TrainState, loop: Loop, stop: StopWish) -> None:
    path = save_checkpoint(loop.folder.checkpoints, state)
    loop.recorder.record("checkpoint", {"step": state.step, "file": path.name})
    if stop.signal_number:
        loop.recorder.record("interrupted", {"step": state.step, "signal": stop.signal_number})
        raise Interrupted(stop.signal_number, loop.folder.path, state.step)
