from collections.abc import Callable
from types import SimpleNamespace

import pytest

from vitreous.training.fit import budget as room
from vitreous.training.fit.budget import Budget, Pace, Stopwatch
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState

MakeState = Callable[..., TrainState]


class Clock:
    """Time that passes only where a test lets it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def run(clock: Clock, state: TrainState, step_s: Callable[[float], float], **budget: float) -> Budget:
    """Take all steps of a run that begins now; `step_s` is the time of a step by seconds spent. Returns its budget."""
    began_s = clock.now_s
    limits = {"limit_s": 100.0, "reserve_s": 5.0, "max_steps": 100_000, **budget}
    keeper = Budget(Stopwatch(0.0, began_s), **limits)  # type: ignore[arg-type]
    state.horizon = Horizon(keeper.steps_left(0, step_s(0.0)))
    while state.step < state.horizon.end_step:
        clock.now_s += step_s(clock.now_s - began_s)
        state.step += 1
        keeper.revise(state)
    return keeper


def test_stopwatch_counts_earlier_processes_too(clock: Clock) -> None:
    stopwatch = Stopwatch(30.0, clock.now_s - 2)
    clock.now_s += 5
    assert stopwatch.elapsed_s() == 37.0


def test_steps_left_fill_the_time_that_is_not_reserved(clock: Clock) -> None:
    budget = Budget(Stopwatch(0.0, clock.now_s), limit_s=100.0, reserve_s=20.0, max_steps=1_000)
    clock.now_s += 30
    assert budget.steps_left(step=7, step_s=0.5) == 100


def test_run_is_never_longer_than_its_most_steps(clock: Clock) -> None:
    budget = Budget(Stopwatch(0.0, clock.now_s), limit_s=1e6, reserve_s=0.0, max_steps=40)
    assert budget.steps_left(step=30, step_s=0.5) == 10


def test_one_step_is_always_taken(clock: Clock) -> None:
    budget = Budget(Stopwatch(500.0, clock.now_s), limit_s=100.0, reserve_s=20.0, max_steps=40)
    assert budget.steps_left(step=7, step_s=0.5) == 1


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 2.0, 4.0, 20.0])
@pytest.mark.parametrize("when_s", [0.0, 10.0, 50.0, 90.0])
def test_run_ends_on_time_whenever_and_however_the_steps_change_their_speed(
    clock: Clock, make_state: MakeState, factor: float, when_s: float
) -> None:
    began_s = clock.now_s
    state = make_state()
    run(clock, state, lambda spent_s: 0.1 * (factor if spent_s > when_s else 1.0))
    spent_s = clock.now_s - began_s
    assert spent_s <= 95.0 + 2 * 0.1 * factor
    assert spent_s >= 0.85 * 95.0
    assert state.progress == 1.0


@pytest.mark.parametrize("factor", [3.0, 30.0])
def test_wrong_first_guess_leaves_time_for_the_whole_schedule(
    clock: Clock, make_state: MakeState, factor: float
) -> None:
    state = make_state()
    keeper = Budget(Stopwatch(0.0, clock.now_s), limit_s=100.0, reserve_s=0.0, max_steps=100_000)
    state.horizon = Horizon(keeper.steps_left(0, 0.5 / factor))
    progress = []
    while state.step < state.horizon.end_step:
        clock.now_s += 0.5
        state.step += 1
        keeper.revise(state)
        progress.append(state.progress)
    assert len(progress) == pytest.approx(200, abs=3)
    # The first tenth of the time may go by at the wrong pace; the rest is even.
    assert progress[100] == pytest.approx(0.5, abs=0.05)


def test_end_that_stays_leaves_the_horizon_as_it_is_for_other_processes_are_not_told(
    clock: Clock, make_state: MakeState
) -> None:
    state = make_state()
    keeper = Budget(Stopwatch(0.0, clock.now_s), limit_s=100.0, reserve_s=0.0, max_steps=200)
    state.horizon = before = Horizon(200)
    for state.step in range(1, 101):
        clock.now_s += 0.25  # twice as fast as it need be: the most steps decide
        assert not keeper.revise(state)
        assert state.horizon is before


def test_one_step_that_takes_all_the_time_is_followed_by_one_more_alone(clock: Clock, make_state: MakeState) -> None:
    state = make_state()
    run(clock, state, lambda spent_s: 500.0 if 3.0 < spent_s < 10.0 else 0.5)
    assert state.progress == 1.0
    assert clock.now_s - 1_000.0 == pytest.approx(3.5 + 500.0 + 0.5)


def test_first_step_that_takes_all_the_time_is_followed_by_one_more_alone(clock: Clock, make_state: MakeState) -> None:
    state = make_state()
    keeper = Budget(Stopwatch(0.0, clock.now_s), limit_s=100.0, reserve_s=5.0, max_steps=1_000)
    state.horizon, state.step = Horizon(500), 1
    clock.now_s += 300.0
    assert keeper.revise(state)
    assert state.horizon.end_step == 2


def test_clock_that_stands_still_ends_the_run_at_its_most_steps(clock: Clock, make_state: MakeState) -> None:
    state = make_state()
    keeper = Budget(Stopwatch(0.0, clock.now_s), limit_s=100.0, reserve_s=5.0, max_steps=90)
    state.horizon = Horizon(50)
    while state.step < state.horizon.end_step:
        state.step += 1
        keeper.revise(state)
    assert state.step == 90


def test_refused_steps_do_not_revise(clock: Clock, make_state: MakeState) -> None:
    state = make_state()
    keeper = Budget(Stopwatch(0.0, clock.now_s), limit_s=100.0, reserve_s=5.0, max_steps=1_000)
    state.horizon = Horizon(50)
    for _ in range(5):
        clock.now_s += 1.0
        assert not keeper.revise(state)


def test_run_that_went_back_to_a_checkpoint_is_revised_again(clock: Clock, make_state: MakeState) -> None:
    state = make_state()
    keeper = Budget(Stopwatch(0.0, clock.now_s), limit_s=100.0, reserve_s=0.0, max_steps=100_000)
    state.horizon = Horizon(100)
    keeper.revise(state)
    for _ in range(98):
        clock.now_s += 1.0
        state.step += 1
        keeper.revise(state)
    # Back to step 50, with the horizon of that time; 2 s are left, and 50 steps to go.
    state.step, state.horizon = 50, Horizon(100)
    while state.step < state.horizon.end_step:
        clock.now_s += 1.0
        state.step += 1
        keeper.revise(state)
    assert clock.now_s - 1_000.0 <= 101.0


def test_revision_that_changes_nothing_is_told_as_such(clock: Clock, make_state: MakeState) -> None:
    state = make_state()
    keeper = Budget(Stopwatch(0.0, clock.now_s), limit_s=1e6, reserve_s=0.0, max_steps=50)
    state.horizon = Horizon(50)
    told = []
    while state.step < state.horizon.end_step:
        clock.now_s += 1.0
        state.step += 1
        told.append(keeper.revise(state))
    assert not any(told)
    assert state.step == 50


def test_mean_of_a_pace_weighs_stretches_by_progress() -> None:
    pace = Pace(((0.0, 0.25, 2.0), (0.25, 0.5, 4.0), (0.5, 1.0, 6.0)))
    assert pace.mean_s(0.0, 1.0) == pytest.approx(4.5)
    assert pace.mean_s(0.125, 0.375) == pytest.approx(3.0)
    assert [pace.mean_s(at, at) for at in (0.1, 0.25, 1.0)] == [2.0, 4.0, 6.0]


def test_run_whose_steps_get_slower_ends_on_time_without_slowing_its_schedule_down(
    clock: Clock, make_state: MakeState
) -> None:
    """Half of the run costs a second a step, the other half four: the progress of half the steps is a half."""
    state = make_state()
    pace = Pace(((0.0, 0.5, 1.0), (0.5, 1.0, 4.0)))
    keeper = Budget(Stopwatch(0.0, clock.now_s), limit_s=500.0, reserve_s=0.0, max_steps=10_000, pace=pace)
    began_s = clock.now_s
    state.horizon = Horizon(keeper.steps_left(0, 1.1 * pace.mean_s(0.0, 1.0)))
    ends = [state.horizon.end_step]
    while state.step < state.horizon.end_step:
        clock.now_s += 1.0 if state.progress < 0.5 else 4.0
        state.step += 1
        keeper.revise(state)
        ends.append(state.horizon.end_step)
    assert clock.now_s - began_s == pytest.approx(500.0, rel=0.02)
    assert state.step == pytest.approx(200, rel=0.03)
    assert max(ends) <= 1.03 * 200
