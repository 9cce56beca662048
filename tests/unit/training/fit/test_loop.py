import math
import signal
import sys
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
from vitreous.tensors import Images, Labels
from vitreous.training.fit.budget import Budget, Stopwatch
from vitreous.training.fit.checkpoint import list_checkpoints, load_newest
from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.loop import Loop, fit
from vitreous.training.folder.records import Recorder, read_records
from vitreous.training.folder.run_folder import RunFolder, create_run_folder
from vitreous.training.machine.signals import Interrupted
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings

MakeState = Callable[..., TrainState]
Snapshot = Callable[[TrainState], dict[str, Tensor]]
Pair = tuple[Images, Labels]


class Faulty(Criterion):
    """A loss that is NaN at the calls that `is_faulty` picks; a refused step calls twice, for the search is one."""

    def __init__(self, is_faulty: Callable[[int], bool]) -> None:
        super().__init__()
        self.calls = 0
        self.is_faulty = is_faulty

    def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        self.calls += 1
        loss = F.cross_entropy(logits, targets)
        return loss * math.nan if self.is_faulty(self.calls) else loss


@pytest.fixture(params=[False, True], ids=["waits", "runs-ahead"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is true of a loop is true whether or not it asks for the next gradient before it reads the last one."""
    monkeypatch.setattr(sys.modules[fit.__module__], "can_run_ahead", lambda state: request.param)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create_run_folder(tmp_path / "run", "fruit")


@pytest.fixture
def make_loop(folder: RunFolder, batch: Pair) -> Callable[..., Loop]:
    """A loop over batches that differ from step to step and from attempt to attempt; keeps what was asked for."""

    def make(**changes: Any) -> Loop:
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
            "checkpoint_every_s": 1e9,
            "max_retries": 2,
        }
        loop = Loop(**{**values, **changes})
        loop.asked = asked  # type: ignore[attr-defined]
        return loop

    return make


def kinds(folder: RunFolder, *wanted: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] in wanted]


def steps_saved(folder: RunFolder) -> list[int]:
    return [int(path.stem[-9:]) for path in list_checkpoints(folder.checkpoints)]


@pytest.mark.usefixtures("_either_way")
def test_run_takes_every_step_once_and_saves_the_first_and_the_last(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    state, loop = make_state(end_step=7), make_loop()
    fit(state, settings, loop)
    assert state.step == 7
    assert loop.asked == [(step, 0) for step in range(7)]  # type: ignore[attr-defined]
    assert steps_saved(folder) == [0, 7]
    assert state.elapsed_s > 0


@pytest.mark.usefixtures("_either_way")
def test_records_say_how_it_went(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    state = make_state(end_step=6)
    fit(state, settings, make_loop())
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


def test_long_run_is_recorded_now_and_then_with_means_and_shown_between(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    heard: list[str] = []
    recorder = Recorder(folder.records, lambda kind, fields: heard.append(kind))
    fit(make_state(end_step=409), settings, make_loop(recorder=recorder))
    records = kinds(folder, "step")
    assert [record["step"] for record in records] == [*range(2, 409, 2), 409]
    assert heard.count("progress") == 409 - len(records)


@pytest.mark.usefixtures("_either_way")
def test_evaluations_come_at_even_progress_and_not_at_the_end(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    scores = {"trained": Score(10, 4, 1.5), "average": Score(10, 5, 1.25)}
    state = make_state(end_step=240)
    long_since = Stopwatch(1e6, time.monotonic())  # beside a long run no evaluation is slow, on no machine
    fit(state, settings, make_loop(evaluate=lambda: scores, stopwatch=long_since))
    records = kinds(folder, "evaluation")
    steps = [record["step"] for record in records if record["weights"] == "average"]
    assert steps == pytest.approx(list(range(20, 240, 20)), abs=3)
    assert [(r["weights"], r["accuracy"], r["loss"]) for r in records[:2]] == [
        ("trained", 0.4, 1.5), ("average", 0.5, 1.25),
    ]  # fmt: skip


def test_slow_evaluations_come_less_often(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    def evaluate() -> dict[str, Score]:
        time.sleep(0.3)
        return {"average": Score(10, 5, 1.25)}

    fit(make_state(end_step=240), settings, make_loop(evaluate=evaluate))
    assert 1 <= len(kinds(folder, "evaluation")) <= 3


@pytest.mark.usefixtures("_either_way")
def test_evaluation_changes_nothing_in_what_is_learned(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], snapshot: Snapshot, tmp_path: Path
) -> None:
    plain, evaluated = make_state(), make_state()

    def evaluate() -> dict[str, Score]:
        torch.rand(3)
        evaluated.model.eval()
        return {}

    fit(plain, settings, make_loop())
    other = create_run_folder(tmp_path / "other", "fruit")
    fit(evaluated, settings, make_loop(evaluate=evaluate, folder=other))
    torch.testing.assert_close(snapshot(evaluated), snapshot(plain), rtol=0, atol=0)


def test_checkpoints_come_as_often_as_asked(
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


# Steps that are not finite.


def test_one_refused_step_is_tried_again_with_new_draws_and_the_run_finishes(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    state, loop = make_state(end_step=5), make_loop()
    # Calls 1 and 2 are steps 0 and 1; 3 is step 2, and 4 the search for the cause.
    fit(state, replace(settings, task=Supervised(Faulty(lambda call: call in (3, 4)))), loop)
    assert loop.asked == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (4, 0)]  # type: ignore[attr-defined]
    assert (state.step, state.refused, state.attempt, state.rollbacks, state.lr_scale) == (5, 1, 0, 0, 1.0)
    (record,) = kinds(folder, "refused")
    assert (record["step"], record["attempt"], record["loss"], record["cause"]) == (2, 1, "nan", "the loss")


def test_step_that_stays_nan_goes_back_to_the_checkpoint_with_half_the_rate(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    state, loop = make_state(end_step=5), make_loop()
    # Steps 0 and 1, then three refusals of step 2 (two calls each): back to step 0, from there all is well.
    fit(state, replace(settings, task=Supervised(Faulty(lambda call: 3 <= call <= 8))), loop)
    retried = [(2, 0), (2, 1), (2, 2)]
    assert loop.asked == [(0, 0), (1, 0), *retried, *[(step, 0) for step in range(5)]]  # type: ignore[attr-defined]
    assert (state.step, state.refused, state.rollbacks, state.lr_scale) == (5, 3, 1, 0.5)
    (record,) = kinds(folder, "rollback")
    assert (record["step"], record["lr_scale"], record["cause"]) == (0, 0.5, "the loss")
    assert record["checkpoint"] == "step-000000000.safetensors"
    rates = [record["lr"] for record in kinds(folder, "step")]
    assert rates[2:4] == pytest.approx([0.5 * rate for rate in rates[:2]])


def test_weights_after_going_back_are_those_of_the_checkpoint(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], snapshot: Snapshot, tmp_path: Path
) -> None:
    troubled, plain = make_state(end_step=4), make_state(end_step=4)
    fit(troubled, replace(settings, task=Supervised(Faulty(lambda call: 3 <= call <= 8))), make_loop())
    plain.lr_scale = 0.5
    other = create_run_folder(tmp_path / "other", "fruit")
    fit(plain, replace(settings, task=Supervised(Faulty(lambda call: False))), make_loop(folder=other))
    torch.testing.assert_close(snapshot(troubled), snapshot(plain), rtol=0, atol=0)


def test_crash_right_after_going_back_does_not_forget_the_halved_rate(
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


def test_run_that_stays_nan_stops_after_the_bound_with_the_cause(
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
        "step=3: the loss is not finite, also after 2 returns to a checkpoint with half the learning rate each; "
        "lower optim.lr, or look at the images of the last batches"
    )
    # Three attempts, thrice: at first and after each of the two returns.
    assert loop.asked[3:] == [(3, attempt) for attempt in (0, 1, 2)] * 3  # type: ignore[attr-defined]
    assert [record["lr_scale"] for record in kinds(folder, "rollback")] == [0.5, 0.25]
    assert len(kinds(folder, "refused")) == state.refused == 9
    saved = make_state(seed=1)
    load_newest(folder.checkpoints, saved)
    assert (saved.step, saved.refused, saved.rollbacks) == (3, 9, 2)
    torch.testing.assert_close(snapshot(saved), snapshot(state), rtol=0, atol=0)
    assert all(tensor.isfinite().all() for tensor in snapshot(saved).values())


@pytest.mark.usefixtures("_either_way")
def test_no_retries_means_to_stop_at_the_first(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    with pytest.raises(NonFiniteError, match=r"^step=0: the loss is not finite, also after 0 returns"):
        fit(make_state(), replace(settings, task=Supervised(Faulty(lambda call: True))), make_loop(max_retries=0))
    assert len(kinds(folder, "refused")) == 1


@pytest.mark.usefixtures("_either_way")
def test_good_weights_of_the_stop_are_kept_though_they_were_not_saved_before(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    criterion = Faulty(lambda call: call > 3)
    with pytest.raises(NonFiniteError, match=r"^step=3: "):
        fit(make_state(), replace(settings, task=Supervised(criterion)), make_loop(max_retries=0))
    saved = make_state()
    load_newest(folder.checkpoints, saved)
    assert (saved.step, saved.attempt) == (3, 0)


def test_damaged_checkpoint_is_told_when_the_run_goes_back_behind_it(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    def damage(call: int) -> bool:
        if call == 9:  # the last refusal; each one before saved the state, and would have mended the file
            newest = list_checkpoints(folder.checkpoints)[-1]
            newest.write_bytes(newest.read_bytes()[:1000])
        return 4 <= call <= 9

    state = make_state(end_step=5)
    fit(state, replace(settings, task=Supervised(Faulty(damage))), make_loop(checkpoint_every_s=0.0))
    (record,) = kinds(folder, "damaged_checkpoint")
    assert "step-000000003.safetensors: is not a complete checkpoint" in record["reason"]
    assert [record["step"] for record in kinds(folder, "rollback")] == [2]
    assert state.step == 5


def test_where_no_checkpoint_is_whole_there_is_no_way_back(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    def damage(call: int) -> bool:
        for path in list_checkpoints(folder.checkpoints):
            path.write_bytes(b"")
        return call > 1

    with pytest.raises(RunError, match=r"none of its checkpoints can be used"):
        fit(make_state(), replace(settings, task=Supervised(Faulty(damage))), make_loop())


def test_retries_count_one_step_at_a_time(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop]
) -> None:
    state = make_state(end_step=6)
    # Every step is refused twice and taken the third time: 5 calls each, the fifth is good.
    fit(state, replace(settings, task=Supervised(Faulty(lambda call: call % 5 != 0))), make_loop(max_retries=2))
    assert (state.step, state.refused, state.rollbacks) == (6, 12, 0)


def test_run_that_reads_its_steps_late_is_the_same_refusals_and_ways_back_included(
    make_state: MakeState,
    settings: StepSettings,
    make_loop: Callable[..., Loop],
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for runs_ahead in (False, True):
        monkeypatch.setattr(sys.modules[fit.__module__], "can_run_ahead", lambda state, ahead=runs_ahead: ahead)
        folder, state = create_run_folder(tmp_path / str(runs_ahead), "fruit"), make_state(end_step=7)
        loop = make_loop(folder=folder, recorder=Recorder(folder.records), evaluate=lambda: {"trained": Score(1, 0, 0)})

        def batch(step: int, attempt: int, loop: Loop = loop) -> Batch:
            # Step 2 fails at first; step 4 until it was tried thrice, which leads back to the first checkpoint.
            is_wrong = (step, attempt) == (2, 0) or (step == 4 and (4, 2) not in loop.asked)  # type: ignore[attr-defined]
            made = loop.batch(step, attempt)
            return replace(made, images=made.images * math.inf) if is_wrong else made

        fit(state, settings, replace(loop, batch=batch))
        of_time = {"time", "elapsed_s", "images_per_s", "data_wait_share"}
        # How often a run is evaluated is up to the clock, too.
        kept = [{key: record[key] for key in record if key not in of_time}
                for record in read_records(folder.records) if record["kind"] != "evaluation"]  # fmt: skip
        found.append((snapshot(state), state.numbers() | {"elapsed_s": 0}, kept))
    assert [record["kind"] for record in found[0][2]].count("refused") == 5
    assert [record["kind"] for record in found[0][2]].count("rollback") == 1
    assert found[1][1:] == found[0][1:]
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=0)


# Wishes to stop, budgets, disks.


@pytest.fixture
def _default_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.usefixtures("_default_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_wish_to_stop_saves_after_the_step(
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
    assert f"{folder.path}: stopped at step 4 and saved; go on with" in str(caught.value)
    saved = make_state(seed=1)
    load_newest(folder.checkpoints, saved)
    assert saved.step == 4
    torch.testing.assert_close(snapshot(saved), snapshot(state), rtol=0, atol=0)
    assert [(r["step"], r["signal"]) for r in kinds(folder, "interrupted")] == [(4, int(number))]


@pytest.mark.usefixtures("_either_way")
def test_budget_ends_the_run_and_records_the_new_end(
    make_state: MakeState, settings: StepSettings, make_loop: Callable[..., Loop], folder: RunFolder
) -> None:
    class Counting(Stopwatch):
        """Twenty milliseconds for each batch asked for, however long it took."""

        def elapsed_s(self) -> float:
            return 0.02 * len(loop.asked)  # type: ignore[attr-defined]

    stopwatch = Counting(0.0, time.monotonic())
    loop = make_loop(stopwatch=stopwatch, budget=Budget(stopwatch, limit_s=1.5, reserve_s=0.0, max_steps=10**9))
    state = make_state(end_step=2_000)
    fit(state, settings, loop)
    assert state.step == state.horizon.end_step
    assert state.elapsed_s == pytest.approx(1.5, abs=0.1)
    assert kinds(folder, "horizon")
    assert kinds(folder, "step")[-1]["lr"] < 0.05 * settings.optim.lr


def test_disk_that_is_full_stops_the_run_and_earlier_checkpoints_are_whole(
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
