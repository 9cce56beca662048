"""TrainState at some step -> TrainState at the last step: when to record, evaluate, save and stop."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vitreous.data.loader import Batch
from vitreous.errors import NonFiniteError
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
from vitreous.wording import plural

RECORDS_PER_RUN = 200
EVALUATIONS_PER_RUN = 12
EVALUATION_SHARE = 0.025
"""Evaluations during the run become rarer if they would take more than this fraction of its time."""
LEAST_WITH_PATIENCE = 12
"""Evaluations of a run that may stop early, if its patience is long; a short patience needs more."""
DEAREST_EVALUATION = 0.05
"""With a time limit, there is none before the end if it would take more than this fraction of the time."""


@dataclass
class Loop:
    """Everything around the steps of a run. With several processes, the first one keeps the time and writes all files.

    Attributes:
        folder: Folder of the run, for checkpoints.
        recorder: Writes the records.
        stopwatch: Seconds spent on the run; the loop's only clock.
        budget: Moves the end of the run to where its time ends; None without a time limit or on other processes.
        batch: (step, attempt) -> batch.
        steps_per_epoch: Converts steps to epochs in the records.
        evaluate: Returns validation scores of the weights and their average; None without validation images.
        keep_best: Saves the model that was evaluated if its scores are the best so far.
        checkpoint_every_s: Seconds between checkpoints.
        max_retries: Upper limit on consecutive rejections of a step, and on rollbacks to a checkpoint.
        patience: Fraction of the run without a better validation loss after which it stops; 0 never stops early.
        watch: Checks the health of the run; None on other processes.
        evaluation_s: Seconds that an evaluation is expected to take, in a run with a time limit; 0 if not known.
        has_labels: Whether the task has labels, and the records an accuracy.
        can_run_ahead: Returns True if the device can compute a gradient while the host reads the last step's result.
    """

    folder: RunFolder
    recorder: Recorder
    stopwatch: Stopwatch
    budget: Budget | None
    batch: Callable[[int, int], Batch]
    steps_per_epoch: float
    evaluate: Callable[[], dict[str, Score]] | None
    keep_best: Callable[[TrainState, dict[str, Score]], None]
    checkpoint_every_s: float
    max_retries: int
    patience: float = 0.0
    watch: Watch | None = None
    evaluation_s: float = 0.0
    has_labels: bool = True
    can_run_ahead: Callable[[TrainState], bool] = can_run_ahead


@dataclass
class _Window:
    """Sums over the steps since the last record, which began at `began_s` of the stopwatch."""

    began_s: float
    steps: int = 0
    images: int = 0
    correct: int = 0
    loss: float = 0.0
    wait_s: float = 0.0

    def add(self, taken: TakenStep) -> None:
        self.steps += 1
        self.images += taken.result.num_images
        self.correct += taken.result.correct
        self.loss += taken.result.loss
        self.wait_s += taken.wait_s


def fit(state: TrainState, settings: StepSettings, loop: Loop) -> None:
    """Train until the horizon, in place.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
        NonFiniteError: A step stayed NaN or infinite after all retries; the last good state is saved.
        SaveError: A checkpoint or record could not be written; the earlier ones are intact.
    """
    if state.step == 0:
        save_checkpoint(loop.folder.checkpoints, state, settings.group)
    saved_s = loop.stopwatch.elapsed_s()
    window = _Window(saved_s)
    steps = Steps(settings, loop.batch, runs_ahead=loop.can_run_ahead(state))
    evaluated_at = state.progress
    evaluation_every = settings.group.from_first(partial(_affordable_interval, state, loop, loop.evaluation_s))
    with listen_for_stop() as stop:
        while state.step < state.horizon.end_step:
            began_at, taken = state.progress, steps.take(state)
            state.elapsed_s = loop.stopwatch.elapsed_s()
            if taken.result.applied:
                state.step, state.attempt = state.step + 1, 0
                window.add(taken)
                if loop.watch is not None:
                    loop.watch.after_step(state, taken.result)
                window = _record_step(state, taken.result, window, loop)
            else:
                _refuse(state, taken, settings, loop)
            signal_number, is_save_due = _synchronize(state, settings.group, loop, stop, saved_s)
            if window.steps and state.step >= state.horizon.end_step:  # the time is up, and this step was the last
                window = _record_step(state, taken.result, window, loop)
            if loop.evaluate and loop.patience and patience_is_due(began_at, state.progress, loop.patience):
                _evaluate(state, loop)
                _stop_early(state, loop)
            elif _is_evaluation_due(state, loop, evaluated_at + evaluation_every):
                cost_s = _evaluate(state, loop)
                evaluated_at = state.progress
                evaluation_every = settings.group.from_first(partial(_affordable_interval, state, loop, cost_s))
            if is_save_due:
                _save(state, settings.group, loop, signal_number)
                saved_s = loop.stopwatch.elapsed_s()
    steps.discard(state)
    if state.step:  # else it is saved already
        save_checkpoint(loop.folder.checkpoints, state, settings.group)


def _synchronize(state: TrainState, group: Group, loop: Loop, stop: StopRequest, saved_s: float) -> tuple[int, bool]:
    """Let all processes agree on the horizon. Return the number of a stop signal, or 0, and whether to save now."""
    is_moved = loop.budget is not None and loop.budget.revise(state)
    is_due = group.is_first and loop.stopwatch.elapsed_s() - saved_s >= loop.checkpoint_every_s
    own = [state.horizon.end_step if is_moved else 0, stop.signal_number, is_due]
    end_step, signal_number, is_any_due = group.max(own)
    if end_step:
        if not is_moved:
            state.horizon = state.horizon.revised(state.step, steps_left=end_step - state.step)
        loop.recorder.record("horizon", {"step": state.step, "end_step": end_step})
    return signal_number, bool(is_any_due or signal_number)


def _record_step(state: TrainState, result: StepResult, window: _Window, loop: Loop) -> _Window:
    """Show the step. If a record is due, write it and return a new window, otherwise return the same one."""
    now_s = loop.stopwatch.elapsed_s()
    seconds = max(now_s - window.began_s, 1e-9)
    fields = {
        "step": state.step,
        "end_step": state.horizon.end_step,
        "epoch": round(state.step / loop.steps_per_epoch, 4),
        "progress": round(state.progress, 6),
        "loss": window.loss / window.steps,
        **({"accuracy": window.correct / window.images} if loop.has_labels else {}),
        "grad_norm": result.grad_norm,
        "lr": result.lr,
        "images_per_s": round(window.images / seconds, 1),
        # A batch that was fetched ahead may have been waited for before this window.
        "data_wait_share": round(min(1.0, window.wait_s / seconds), 4),
        "elapsed_s": round(state.elapsed_s, 2),
    }
    if window.steps < max(1, state.horizon.end_step // RECORDS_PER_RUN) and state.step < state.horizon.end_step:
        loop.recorder.show("progress", fields)
        return window
    loop.recorder.record("step", fields)
    return _Window(now_s)


def _refuse(state: TrainState, taken: TakenStep, settings: StepSettings, loop: Loop) -> None:
    """Retry the step with other random draws. After `max_retries`, go back to a checkpoint and halve the rate."""
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
        tried = (
            f", even after {plural(state.rollbacks, 'rollback')} and a lower learning rate" if state.rollbacks else ""
        )
        raise NonFiniteError(
            f"step={state.step}: {cause} is not finite{tried}; lower optim.lr, or check the images of the last batches"
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


def _evaluate(state: TrainState, loop: Loop) -> float:
    """Record the scores on validation images. Return the seconds that this took."""
    began_s = loop.stopwatch.elapsed_s()
    scores = loop.evaluate() if loop.evaluate else {}
    epoch = round(state.step / loop.steps_per_epoch, 4)
    for weights, found in scores.items():
        loop.recorder.record("evaluation", {"step": state.step, "epoch": epoch, "weights": weights, **found.as_dict()})
    if loop.watch is not None:
        loop.watch.after_evaluation(state, scores)
    loop.keep_best(state, scores)
    return loop.stopwatch.elapsed_s() - began_s


def _stop_early(state: TrainState, loop: Loop) -> None:
    """End the run at this step if the validation loss has not improved for longer than the patience."""
    if state.step < state.horizon.end_step and patience_is_over(state, loop.patience):
        loop.recorder.record("stopped_early", {"step": state.step, "best_loss": state.best_loss,
                                               "best_progress": state.best_progress})  # fmt: skip
        state.horizon = Horizon(end_step=state.step)


def patience_is_due(before: float, after: float, patience: float) -> bool:
    """Return True if early stopping needs an evaluation between two progress values.

    Evaluations are due at fixed progress values, so a resumed run evaluates at the same steps. The patience is a share
    of the run, into which at least two evaluations fall.
    """
    num = max(LEAST_WITH_PATIENCE, math.ceil(2 / patience))
    return int(after * num + 1e-9) > int(before * num + 1e-9)


def patience_is_over(state: TrainState, patience: float) -> bool:
    """Return True if the validation loss has not improved for longer than the patience."""
    return state.progress - state.best_progress > patience - 1e-6  # tolerates rounding errors of progress


def _affordable_interval(state: TrainState, loop: Loop, cost_s: float) -> float:
    """Return the progress between evaluations that keeps them within `EVALUATION_SHARE` of the time of the run."""
    run_s = state.elapsed_s / max(state.progress, 1e-6)
    if loop.budget is not None:
        run_s = loop.budget.limit.training_s()
        if cost_s > DEAREST_EVALUATION * run_s:
            return 1.0
    return max(1 / EVALUATIONS_PER_RUN, min(0.5, cost_s / (EVALUATION_SHARE * max(run_s, 1e-6))))


def _save(state: TrainState, group: Group, loop: Loop, signal_number: int) -> None:
    path = save_checkpoint(loop.folder.checkpoints, state, group)
    loop.recorder.record("checkpoint", {"step": state.step, "file": path.name})
    if signal_number:
        loop.recorder.record("interrupted", {"step": state.step, "signal": signal_number})
        raise Interrupted(signal_number, loop.folder.path, state.step)
