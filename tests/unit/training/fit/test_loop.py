import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.data.loader import Batch
from vitreous.errors import NonFiniteError, RunError, SaveError
from vitreous.objective.task import Criterion, Supervised
from vitreous.recipe.pace import Pace, TimeLimit
from vitreous.tensors import Images, Labels
from vitreous.training.fit.budget import Budget, Stopwatch
from vitreous.training.fit.checkpoint import list_checkpoints, load_newest
from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.loop import Loop, fit
from vitreous.training.folder.access import create_run_folder
from vitreous.training.folder.records import Recorder, read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.signals import Interrupted
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings

MakeState = Callable[..., TrainState]
Snapshot = Callable[[TrainState], dict[str, Tensor]]
Pair = tuple[Images, Labels]


class Faulty(Criterion):
    """A loss that is NaN at the calls that `is_faulty` selects. A refused step calls it again to find the cause."""

    def __init__(self, is_faulty: Callable[[int], bool]) -> None:
        super().__init__()
        self.calls = 0
        self.is_faulty = is_faulty

    def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        self.calls += 1
        loss = F.cross_entropy(logits, targets)
        return loss * math.nan if self.is_faulty(self.calls) else loss


@pytest.fixture(params=[False, True], ids=["waits", "runs-ahead"])
def runs_ahead(request: pytest.FixtureRequest) -> bool:
    """Whether the loop computes the next gradient before it reads the result of the last step."""
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create_run_folder(tmp_path / "run", "fruit")


@pytest.fixture
def make_loop(folder: RunFolder, batch: Pair) -> Callable[..., Loop]:
    """Factory of loops over batches that differ by step and attempt; `loop.asked` lists the batches taken."""

    def make(*, runs_ahead: bool = False, **changes: Any) -> Loop:
        asked: list[tuple[int, int]] = []

        def batch_of(step: int, attempt: int) -> Batch:
            asked.append((step, attempt))
            images = batch[0] * (1 + 0.1 * (step % 4)) + 0.01 * attempt
            return Batch(images, batch[1], torch.arange(6).numpy())

        values: dict[str, Any] = {
            "folder": folder,
            "recorder": Recorder(folder.records),
            "stopwatch": Stopwatch(0.0, time.monotonic()),
            "budget": None,
            "batch": batch_of,
            "steps_per_epoch": 4,
            "evaluate": None,
            "keep_best": lambda state, scores: None,
            "checkpoint_every_s": 1e9,
            "max_retries": 2,
            "can_run_ahead": lambda state: runs_ahead,
        }
        loop = Loop(**{**values, **changes})
        loop.asked = asked  # type: ignore[attr-defined]
        return loop

    return make


def kinds(folder: RunFolder, *wanted: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] in wanted]


def steps_saved(folder: RunFolder) -> list[int]:
    return [int(path.stem[-9:]) for path in list_checkpoints(folder.checkpoints)]


def test_run_takes_every_step_once_and_saves_the_first_and_last_state(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder, runs_ahead: bool
) -> None:
    state, loop = make_state(end_step=7), make_loop(runs_ahead=runs_ahead)
    fit(state, settings, loop)
    assert state.step == 7
    assert loop.asked == [(step, 0) for step in range(7)]  # type: ignore[attr-defined]
    assert steps_saved(folder) == [0, 7]
    assert state.elapsed_s > 0


def test_records_describe_each_step(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder, runs_ahead: bool
) -> None:
    state = make_state(end_step=6)
    fit(state, settings, make_loop(runs_ahead=runs_ahead))
    records = kinds(folder, "step")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["epoch"] for record in records] == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    assert records[-1]["progress"] == 1.0
    for record in records:
        assert record["end_step"] == 6
        assert 0 < record["loss"] < 5
        assert 0 <= record["accuracy"] <= 1
        assert 0 <= record["data_wait_share"] <= 1
        assert record["lr"] > 0
        assert record["grad_norm"] > 0
        assert record["images_per_s"] > 0


def test_long_run_records_some_steps_and_shows_the_others(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    heard: list[str] = []
    recorder = Recorder(folder.records, lambda kind, fields: heard.append(kind))
    fit(make_state(end_step=409), settings, make_loop(recorder=recorder))
    records = kinds(folder, "step")
    assert [record["step"] for record in records] == [*range(2, 409, 2), 409]
    assert heard.count("progress") == 409 - len(records)


def test_evaluations_are_evenly_spaced_and_not_at_the_end(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder, runs_ahead: bool
) -> None:
    scores = {"trained": Score(10, 4, 1.5), "average": Score(10, 5, 1.25)}
    state = make_state(end_step=240)
    long_since = Stopwatch(1e6, time.monotonic())  # in a long run, no evaluation counts as slow
    fit(state, settings, make_loop(runs_ahead=runs_ahead, evaluate=lambda: scores, stopwatch=long_since))
    records = kinds(folder, "evaluation")
    steps = [record["step"] for record in records if record["weights"] == "average"]
    assert steps == pytest.approx(list(range(20, 240, 20)), abs=3)
    assert [(r["weights"], r["accuracy"], r["loss"]) for r in records[:2]] == [
        ("trained", 0.4, 1.5), ("average", 0.5, 1.25),
    ]  # fmt: skip


def test_slow_evaluations_become_rarer(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    def evaluate() -> dict[str, Score]:
        time.sleep(0.3)
        return {"average": Score(10, 5, 1.25)}

    fit(make_state(end_step=240), settings, make_loop(evaluate=evaluate))
    assert 1 <= len(kinds(folder, "evaluation")) <= 3


@pytest.mark.parametrize(("evaluation_s", "first"), [(0.0, 20), (0.9, 86), (4.0, 120), (6.0, None)])
def test_budget_decides_when_the_first_evaluation_is_affordable(
    make_state: MakeState,
    settings: StepSettings,
    make_loop: Callable[..., Loop],
    folder: RunFolder,
    evaluation_s: float,
    first: int | None,
) -> None:
    state, clock = make_state(end_step=240), iter(float(i) for i in range(10**6))
    stopwatch, scores = Stopwatch(0.0, 0.0, lambda: next(clock) / 1e4), {"average": Score(10, 5, 1.25)}
    budget = Budget(TimeLimit(105.0, 5.0), max_steps=240, pace=Pace(((0.0, 1.0, 0.01),)))
    fit(
        state,
        settings,
        make_loop(evaluate=lambda: scores, stopwatch=stopwatch, budget=budget, evaluation_s=evaluation_s),
    )
    steps = [record["step"] for record in kinds(folder, "evaluation")]
    assert (steps == []) if first is None else steps[0] == pytest.approx(first, abs=3)


def test_evaluation_does_not_change_the_training(
    make_state: MakeState,
    settings: StepSettings,
    make_loop: Callable[..., Loop],
    snapshot: Snapshot,
    tmp_path: Path,
    runs_ahead: bool,
) -> None:
    plain, evaluated = make_state(), make_state()

    def evaluate() -> dict[str, Score]:
        torch.rand(3)
        evaluated.model.eval()
        return {}

    fit(plain, settings, make_loop(runs_ahead=runs_ahead))
    other = create_run_folder(tmp_path / "other", "fruit")
    fit(evaluated, settings, make_loop(runs_ahead=runs_ahead, evaluate=evaluate, folder=other))
    torch.testing.assert_close(snapshot(evaluated), snapshot(plain), rtol=0, atol=0)


def test_checkpoints_are_as_frequent_as_requested(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    fit(make_state(end_step=5), settings, make_loop(checkpoint_every_s=0.0))
    assert [record["step"] for record in kinds(folder, "checkpoint")] == [1, 2, 3, 4, 5]
    assert steps_saved(folder) == [4, 5]


@pytest.mark.parametrize("stopped_at", [0, 3, 6])
def test_resume_from_any_checkpoint_continues_bit_for_bit(
    make_state: MakeState,
    settings: StepSettings,
    make_loop: Callable[..., Loop],
    snapshot: Snapshot,
    tmp_path: Path,
    stopped_at: int,
) -> None:
    whole = make_state(end_step=7)
    fit(whole, settings, make_loop())

    def stop(step: int, attempt: int) -> Batch:
        if step == stopped_at:
            raise RuntimeError("the power is gone")
        return loop.batch(step, attempt)

    folder = create_run_folder(tmp_path / "other", "fruit")
    loop = make_loop(folder=folder, checkpoint_every_s=0.0)
    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(make_state(end_step=7), settings, replace(loop, batch=stop))
    resumed = make_state(seed=1, end_step=99)
    load_newest(folder.checkpoints, resumed)
    assert resumed.step == stopped_at
    fit(resumed, settings, loop)
    torch.testing.assert_close(snapshot(resumed), snapshot(whole), rtol=0, atol=0)


# Steps with NaN or infinity.


def test_refused_step_is_retried_with_other_draws_and_the_run_finishes(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    state, loop = make_state(end_step=5), make_loop()
    # Calls 1 and 2 are steps 0 and 1, call 3 is step 2, and call 4 searches for the cause.
    fit(state, replace(settings, task=Supervised(Faulty(lambda call: call in (3, 4)))), loop)
    assert loop.asked == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (4, 0)]  # type: ignore[attr-defined]
    assert (state.step, state.refused, state.attempt, state.rollbacks, state.lr_scale) == (5, 1, 0, 0, 1.0)
    (record,) = kinds(folder, "refused")
    assert (record["step"], record["attempt"], record["loss"], record["cause"]) == (2, 1, "nan", "the loss")


def test_step_that_stays_nan_goes_back_to_a_checkpoint_with_half_the_learning_rate(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    state, loop = make_state(end_step=5), make_loop()
    # Steps 0 and 1, then three refusals of step 2 with two calls each, then a rollback to step 0. Later calls succeed.
    fit(state, replace(settings, task=Supervised(Faulty(lambda call: 3 <= call <= 8))), loop)
    retried = [(2, 0), (2, 1), (2, 2)]
    assert loop.asked == [(0, 0), (1, 0), *retried, *[(step, 0) for step in range(5)]]  # type: ignore[attr-defined]
    assert (state.step, state.refused, state.rollbacks, state.lr_scale) == (5, 3, 1, 0.5)
    (record,) = kinds(folder, "rollback")
    assert (record["step"], record["lr_scale"], record["cause"]) == (0, 0.5, "the loss")
    assert record["checkpoint"] == "step-000000000.safetensors"
    rates = [record["lr"] for record in kinds(folder, "step")]
    assert rates[2:4] == pytest.approx([0.5 * rate for rate in rates[:2]])


def test_weights_after_a_rollback_are_those_of_the_checkpoint(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], snapshot: Snapshot, tmp_path: Path
) -> None:
    troubled, plain = make_state(end_step=4), make_state(end_step=4)
    fit(troubled, replace(settings, task=Supervised(Faulty(lambda call: 3 <= call <= 8))), make_loop())
    plain.lr_scale = 0.5
    other = create_run_folder(tmp_path / "other", "fruit")
    fit(plain, replace(settings, task=Supervised(Faulty(lambda call: False))), make_loop(folder=other))
    torch.testing.assert_close(snapshot(troubled), snapshot(plain), rtol=0, atol=0)


def test_crash_right_after_a_rollback_keeps_the_halved_learning_rate(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    loop = make_loop()

    def crash(step: int, attempt: int) -> Batch:
        if (step, attempt) in loop.asked and attempt == 0:  # type: ignore[attr-defined]
            raise RuntimeError("the power is gone")
        return loop.batch(step, attempt)

    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(
            make_state(), replace(settings, task=Supervised(Faulty(lambda call: call >= 3))), replace(loop, batch=crash)
        )
    saved = make_state()
    load_newest(folder.checkpoints, saved)
    assert (saved.step, saved.rollbacks, saved.lr_scale, saved.refused, saved.attempt) == (0, 1, 0.5, 3, 0)


def test_run_that_stays_nan_stops_after_all_retries_and_names_the_cause(
    make_state: MakeState,
    settings: StepSettings,
    make_loop: Callable[..., Loop],
    snapshot: Snapshot,
    folder: RunFolder,
) -> None:
    state, loop = make_state(end_step=9), make_loop(checkpoint_every_s=0.0)
    with pytest.raises(NonFiniteError) as caught:
        fit(state, replace(settings, task=Supervised(Faulty(lambda call: call > 3))), loop)
    assert str(caught.value) == (
        "step=3: the loss is not finite, even after 2 rollbacks and a lower learning rate; lower optim.lr, or check "
        "the images of the last batches"
    )
    # Three attempts, then three more after each of the two rollbacks.
    assert loop.asked[3:] == [(3, attempt) for attempt in (0, 1, 2)] * 3  # type: ignore[attr-defined]
    assert [record["lr_scale"] for record in kinds(folder, "rollback")] == [0.5, 0.25]
    assert len(kinds(folder, "refused")) == state.refused == 9
    saved = make_state(seed=1)
    load_newest(folder.checkpoints, saved)
    assert (saved.step, saved.refused, saved.rollbacks) == (3, 9, 2)
    torch.testing.assert_close(snapshot(saved), snapshot(state), rtol=0, atol=0)
    assert all(tensor.isfinite().all() for tensor in snapshot(saved).values())


def test_run_without_retries_stops_at_the_first_refusal(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder, runs_ahead: bool
) -> None:
    with pytest.raises(NonFiniteError, match=r"^step=0: the loss is not finite; lower optim\.lr, or "):
        fit(
            make_state(),
            replace(settings, task=Supervised(Faulty(lambda call: True))),
            make_loop(runs_ahead=runs_ahead, max_retries=0),
        )
    assert len(kinds(folder, "refused")) == 1


def test_last_good_weights_are_saved_when_the_run_stops(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder, runs_ahead: bool
) -> None:
    criterion = Faulty(lambda call: call > 3)
    with pytest.raises(NonFiniteError, match=r"^step=3: "):
        fit(
            make_state(), replace(settings, task=Supervised(criterion)), make_loop(runs_ahead=runs_ahead, max_retries=0)
        )
    saved = make_state()
    load_newest(folder.checkpoints, saved)
    assert (saved.step, saved.attempt) == (3, 0)


def test_rollback_past_a_damaged_checkpoint_is_recorded(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    def damage(call: int) -> bool:
        if call == 9:  # the last refusal; earlier ones would save the state over the damaged file
            newest = list_checkpoints(folder.checkpoints)[-1]
            newest.write_bytes(newest.read_bytes()[:1000])
        return 4 <= call <= 9

    state = make_state(end_step=5)
    fit(state, replace(settings, task=Supervised(Faulty(damage))), make_loop(checkpoint_every_s=0.0))
    (record,) = kinds(folder, "damaged_checkpoint")
    assert "step-000000003.safetensors: cannot be read as .safetensors" in record["reason"]
    assert [record["step"] for record in kinds(folder, "rollback")] == [2]
    assert state.step == 5


def test_rollback_without_an_intact_checkpoint_is_an_error(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    def damage(call: int) -> bool:
        for path in list_checkpoints(folder.checkpoints):
            path.write_bytes(b"")
        return call > 1

    with pytest.raises(RunError, match=r"none of its checkpoints can be used"):
        fit(make_state(), replace(settings, task=Supervised(Faulty(damage))), make_loop())


def test_retries_are_counted_per_step(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop]
) -> None:
    state = make_state(end_step=6)
    # Every step is refused twice and succeeds the third time, at the fifth call.
    fit(state, replace(settings, task=Supervised(Faulty(lambda call: call % 5 != 0))), make_loop(max_retries=2))
    assert (state.step, state.refused, state.rollbacks) == (6, 12, 0)


def test_running_ahead_gives_the_same_run_including_refusals_and_rollbacks(
    make_state: MakeState,
    settings: StepSettings,
    make_loop: Callable[..., Loop],
    snapshot: Snapshot,
    tmp_path: Path,
) -> None:
    found = []
    for runs_ahead in (False, True):
        folder, state = create_run_folder(tmp_path / str(runs_ahead), "fruit"), make_state(end_step=7)
        loop = make_loop(
            runs_ahead=runs_ahead,
            folder=folder,
            recorder=Recorder(folder.records),
            evaluate=lambda: {"trained": Score(1, 0, 0)},
        )

        def batch(step: int, attempt: int, loop: Loop = loop) -> Batch:
            # Step 2 fails once. Step 4 fails three times, which causes a rollback to the first checkpoint.
            is_wrong = (step, attempt) == (2, 0) or (step == 4 and (4, 2) not in loop.asked)  # type: ignore[attr-defined]
            made = loop.batch(step, attempt)
            return replace(made, images=made.images * math.inf) if is_wrong else made

        fit(state, settings, replace(loop, batch=batch))
        timings = {"time", "elapsed_s", "images_per_s", "data_wait_share"}
        # The number of evaluations depends on the clock too.
        kept = [{key: record[key] for key in record if key not in timings}
                for record in read_records(folder.records) if record["kind"] != "evaluation"]  # fmt: skip
        found.append((snapshot(state), state.numbers() | {"elapsed_s": 0}, kept))
    assert [record["kind"] for record in found[0][2]].count("refused") == 5
    assert [record["kind"] for record in found[0][2]].count("rollback") == 1
    assert found[1][1:] == found[0][1:]
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=0)


# Signals, budgets, disks.


@pytest.fixture
def _default_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.usefixtures("_default_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signal_saves_after_the_current_step(
    make_state: MakeState,
    settings: StepSettings,
    make_loop: Callable[..., Loop],
    snapshot: Snapshot,
    folder: RunFolder,
    number: signal.Signals,
) -> None:
    state, loop = make_state(end_step=9), make_loop()

    def stop(step: int, attempt: int) -> Batch:
        if step == 3:
            signal.raise_signal(number)
        return loop.batch(step, attempt)

    with pytest.raises(Interrupted) as caught:
        fit(state, settings, replace(loop, batch=stop))
    assert caught.value.signal_number == number
    assert f"{folder.path}: stopped at step 4 and saved; continue with" in str(caught.value)
    saved = make_state(seed=1)
    load_newest(folder.checkpoints, saved)
    assert saved.step == 4
    torch.testing.assert_close(snapshot(saved), snapshot(state), rtol=0, atol=0)
    assert [(r["step"], r["signal"]) for r in kinds(folder, "interrupted")] == [(4, int(number))]


def test_budget_ends_the_run_in_time_and_records_the_new_end(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder, runs_ahead: bool
) -> None:
    class Counting(Stopwatch):
        """Twenty milliseconds for each batch taken, however long it really took."""

        def elapsed_s(self) -> float:
            return 0.02 * len(loop.asked)  # type: ignore[attr-defined]

    stopwatch = Counting(0.0, time.monotonic())
    loop = make_loop(runs_ahead=runs_ahead, stopwatch=stopwatch, budget=Budget(TimeLimit(1.5, 0.0), max_steps=10**9))
    state = make_state(end_step=2_000)
    fit(state, settings, loop)
    assert state.step == state.horizon.end_step
    assert state.elapsed_s == pytest.approx(1.5, abs=0.1)
    assert kinds(folder, "horizon")
    assert kinds(folder, "step")[-1]["lr"] < 0.05 * settings.optim.lr


def test_full_disk_stops_the_run_and_earlier_checkpoints_stay_intact(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder, batch: Pair
) -> None:
    loop = make_loop(checkpoint_every_s=0.0)

    def fill(step: int, attempt: int) -> Batch:
        if step == 3:
            folder.checkpoints.rename(folder.path / "moved")
        return loop.batch(step, attempt)

    with pytest.raises(SaveError, match=r"step-000000004\.safetensors: could not be written"):
        fit(make_state(), settings, replace(loop, batch=fill))
    saved = make_state()
    path, damaged = load_newest(folder.path / "moved", saved)
    assert (path is not None, damaged, saved.step) == (True, [], 3)
