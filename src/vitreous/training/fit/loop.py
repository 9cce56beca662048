"""TrainState at some step -> TrainState at the last: the cadence of steps, records, evaluations and checkpoints."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from vitreous.data.loader import Batch
from vitreous.errors import NonFiniteError
from vitreous.training.fit import patience
from vitreous.training.fit.budget import Budget, Stopwatch
from vitreous.training.fit.checkpoint import load_newest, save_checkpoint
from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.health import Watch
from vitreous.training.folder.records import Recorder
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.distributed import Group
from vitreous.training.machine.signals import Interrupted, StopRequest, listen_for_stop
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.run_ahead import Steps, TakenStep, can_run_ahead
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepResult, StepSettings, find_non_finite

RECORDS_PER_RUN = 200
EVALUATIONS_PER_RUN = 12
EVALUATION_SHARE = 0.025
"""Evaluations on the way come less often where they would take more than this share of the time."""


@dataclass
class Loop:
    """What the loop works with. Of several processes that train, the first one keeps the time and writes for all.

    Attributes:
        folder: Where checkpoints go.
        recorder: Where records go.
        stopwatch: Seconds spent on the run.
        budget: Where the time is limited, what keeps the horizon; the first process has it.
        batch: (step, attempt) -> batch.
        steps_per_epoch: To say epochs rather than steps.
        evaluate: Scores the present model and its average on validation images; None where there are none.
        checkpoint_every_s: Seconds between checkpoints.
        max_retries: Bound on consecutive refusals of a step, and on returns to a checkpoint.
        patience: Share of the run without a better validation loss after which it stops; 0: it never does.
        watch: Looks after the run; the first process has it.
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
    patience: float = 0.0
    watch: Watch | None = None


@dataclass
class _Since:
    """Sums since the last record, and when each thing was last done."""

    steps: int = 0
    images: int = 0
    correct: int = 0
    loss: float = 0.0
    wait_s: float = 0.0
    began_s: float = field(default_factory=time.monotonic)

    def add(self, taken: TakenStep) -> None:
        self.steps += 1
        self.images += taken.result.num_images
        self.correct += taken.result.correct
        self.loss += taken.result.loss
        self.wait_s += taken.wait_s


def fit(state: TrainState, settings: StepSettings, loop: Loop) -> None:
    """Take steps until the horizon, in place.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
        NonFiniteError: Steps stayed NaN or infinite after all retries; the last good state is saved.
        SaveError: A checkpoint or record could not be written; the earlier ones are whole.
    """
    if state.step == 0:
        save_checkpoint(loop.folder.checkpoints, state, settings.group)
    since, saved_s = _Since(), time.monotonic()
    steps = Steps(settings, loop.batch, runs_ahead=can_run_ahead(state))
    evaluated_at, evaluation_every = state.progress, 1 / EVALUATIONS_PER_RUN
    with listen_for_stop() as stop:
        while state.step < state.horizon.end_step:
            began_at, taken = state.progress, steps.take(state)
            state.elapsed_s = loop.stopwatch.elapsed_s()
            if taken.result.applied:
                state.step, state.attempt = state.step + 1, 0
                since.add(taken)
                if loop.watch is not None:
                    loop.watch.after_step(state, taken.result)
                since = _tell(state, taken.result, since, loop)
            else:
                _refuse(state, taken, settings, loop)
            signal_number, is_save_due = _agree(state, settings.group, loop, stop, saved_s)
            if loop.evaluate and loop.patience and patience.is_due(began_at, state.progress, loop.patience):
                _evaluate(state, settings.group, loop)
                _stop_early(state, loop)
            elif _is_evaluation_due(state, loop, evaluated_at + evaluation_every):
                cost_s = _evaluate(state, settings.group, loop)
                evaluated_at = state.progress
                affordable = settings.group.from_first(partial(_affordable, state, cost_s))
                evaluation_every = max(1 / EVALUATIONS_PER_RUN, affordable)
            if is_save_due:
                _save(state, settings.group, loop, signal_number)
                saved_s = time.monotonic()
    steps.discard(state)
    save_checkpoint(loop.folder.checkpoints, state, settings.group)


def _agree(state: TrainState, group: Group, loop: Loop, stop: StopRequest, saved_s: float) -> tuple[int, bool]:
    """Let all processes know when the run ends, what asked any of them to stop, and whether a checkpoint is due."""
    is_moved = loop.budget is not None and loop.budget.revise(state)
    is_due = group.is_first and time.monotonic() - saved_s >= loop.checkpoint_every_s
    own = [state.horizon.end_step if is_moved else 0, stop.signal_number, is_due]
    end_step, signal_number, is_any_due = group.max(own)
    if end_step:
        if not is_moved:
            state.horizon = state.horizon.revised(state.step, steps_left=end_step - state.step)
        loop.recorder.record("horizon", {"step": state.step, "end_step": end_step})
    return signal_number, bool(is_any_due or signal_number)


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


def _refuse(state: TrainState, taken: TakenStep, settings: StepSettings, loop: Loop) -> None:
    """Try the step again with new draws; after `max_retries`, go back to the last checkpoint with half the rate."""
    result, cause = taken.result, find_non_finite(state, taken.batch.images, taken.batch.labels, settings)
    state.refused += 1
    state.attempt += 1
    fields = {"step": state.step, "attempt": state.attempt, "loss": result.loss, "grad_norm": result.grad_norm}
    loop.recorder.record("refused", {**fields, "cause": cause})
    if state.attempt <= loop.max_retries:
        return
    if state.rollbacks >= loop.max_retries:
        state.attempt = 0
        save_checkpoint(loop.folder.checkpoints, state, settings.group)
        raise NonFiniteError(
            f"step={state.step}: {cause} is not finite, also after {state.rollbacks} returns to a checkpoint with half "
            f"the learning rate each; lower optim.lr, or look at the images of the last batches"
        )
    rollbacks, lr_scale, refused, elapsed_s = state.rollbacks + 1, state.lr_scale / 2, state.refused, state.elapsed_s
    path, damaged = load_newest(loop.folder.checkpoints, state, settings.group)
    for reason in damaged:
        loop.recorder.record("damaged_checkpoint", {"reason": reason})
    state.rollbacks, state.lr_scale, state.refused, state.elapsed_s = rollbacks, lr_scale, refused, elapsed_s
    state.attempt = 0
    save_checkpoint(loop.folder.checkpoints, state, settings.group)
    back = {"step": state.step, "checkpoint": path.name if path else "", "lr_scale": lr_scale, "cause": cause}
    loop.recorder.record("rollback", back)


def _is_evaluation_due(state: TrainState, loop: Loop, due_at: float) -> bool:
    return loop.evaluate is not None and not loop.patience and due_at <= state.progress < 1


def _evaluate(state: TrainState, group: Group, loop: Loop) -> float:
    """Record the scores on validation images; returns the seconds it took."""
    began_s = time.monotonic()
    scores = loop.evaluate() if loop.evaluate else {}
    epoch = round(state.step / loop.steps_per_epoch, 4)
    for weights, found in scores.items():
        loop.recorder.record("evaluation", {"step": state.step, "epoch": epoch, "weights": weights, **found.as_dict()})
    if loop.watch is not None:
        loop.watch.after_evaluation(state, scores)
    if loop.patience:
        patience.keep_best(state, scores, loop.folder, group)
    return time.monotonic() - began_s


def _stop_early(state: TrainState, loop: Loop) -> None:
    """Make this step the last one where nothing got better for long enough."""
    if state.step < state.horizon.end_step and patience.is_over(state, loop.patience):
        loop.recorder.record("stopped_early", {"step": state.step, "best_loss": state.best_loss,
                                               "best_progress": state.best_progress})  # fmt: skip
        state.horizon = Horizon(end_step=state.step)


def _affordable(state: TrainState, cost_s: float) -> float:
    """Progress between evaluations that keeps them within their share of the time."""
    run_s = state.elapsed_s / max(state.progress, 1e-6)
    return min(0.5, cost_s / (EVALUATION_SHARE * max(run_s, 1e-6)))


def _save(state: TrainState, group: Group, loop: Loop, signal_number: int) -> None:
    path = save_checkpoint(loop.folder.checkpoints, state, group)
    loop.recorder.record("checkpoint", {"step": state.step, "file": path.name})
    if signal_number:
        loop.recorder.record("interrupted", {"step": state.step, "signal": signal_number})
        raise Interrupted(signal_number, loop.folder.path, state.step)
