from collections.abc import Callable

import pytest

from vitreous.recipe.pace import Pace, TimeLimit
from vitreous.training.fit.budget import Budget, Stopwatch
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState

MakeState = Callable[..., TrainState]


def budget(
    *, limit_s: float = 100.0, reserve_s: float = 0.0, max_steps: int = 100_000, pace: Pace | None = None
) -> Budget:
    return Budget(TimeLimit(limit_s, reserve_s), max_steps, Pace() if pace is None else pace)


def take_step(state: TrainState, seconds: float, keeper: Budget) -> bool:
    """Take a step of this many seconds; True if the end of the run moved."""
    state.elapsed_s += seconds
    state.step += 1
    return keeper.revise(state)


def run(state: TrainState, keeper: Budget, step_s: Callable[[float], float]) -> None:
    """Take all steps of a run; `step_s` returns the seconds of a step by the seconds spent so far."""
    state.horizon = Horizon(keeper.steps_left(0, step_s(0.0), elapsed_s=0.0))
    while state.step < state.horizon.end_step:
        take_step(state, step_s(state.elapsed_s), keeper)


def test_stopwatch_includes_the_seconds_of_earlier_processes() -> None:
    now_s = [1_000.0]
    stopwatch = Stopwatch(30.0, 998.0, lambda: now_s[0])
    now_s[0] += 5
    assert stopwatch.elapsed_s() == 37.0


def test_stopwatch_goes_on_when_the_clock_goes_back() -> None:
    readings = iter([105.0, 3.0, 4.0, 1.0, 1.5])
    stopwatch = Stopwatch(30.0, 100.0, lambda: next(readings))
    assert [stopwatch.elapsed_s() for _ in range(5)] == [35.0, 35.0, 36.0, 36.0, 36.5]


def test_steps_left_fill_the_time_outside_the_reserve() -> None:
    assert budget(reserve_s=20.0, max_steps=1_000).steps_left(step=7, step_s=0.5, elapsed_s=30.0) == 100


def test_run_is_never_longer_than_its_step_limit() -> None:
    assert budget(limit_s=1e6, max_steps=40).steps_left(step=30, step_s=0.5, elapsed_s=0.0) == 10


def test_at_least_one_step_is_taken() -> None:
    assert budget(reserve_s=20.0, max_steps=40).steps_left(step=0, step_s=0.5, elapsed_s=500.0) == 1


def test_begin_sets_the_end_from_the_pace_of_the_remaining_run(make_state: MakeState) -> None:
    keeper = budget(limit_s=120.0, reserve_s=5.0, pace=Pace(((0.0, 0.5, 1.0), (0.5, 1.0, 4.0))))
    state = make_state(end_step=10)
    keeper.begin(state, elapsed_s=60.0)
    assert state.horizon.end_step == int(55 / (1.1 * 2.5))
    state = make_state(end_step=10)
    state.step = 5
    keeper.begin(state, elapsed_s=60.0)
    assert (state.horizon.end_step, state.progress) == (5 + int(55 / (1.1 * 4.0)), 0.5)


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 2.0, 4.0, 20.0])
@pytest.mark.parametrize("when_s", [0.0, 10.0, 50.0, 90.0])
def test_run_ends_on_time_when_its_steps_change_their_speed(
    make_state: MakeState, factor: float, when_s: float
) -> None:
    state = make_state()
    run(state, budget(reserve_s=5.0), lambda spent_s: 0.1 * (factor if spent_s > when_s else 1.0))
    assert 0.85 * 95.0 <= state.elapsed_s <= 95.0 + 2 * 0.1 * factor
    assert state.progress == 1.0


@pytest.mark.parametrize("factor", [3.0, 30.0])
def test_wrong_first_estimate_leaves_time_for_the_whole_schedule(make_state: MakeState, factor: float) -> None:
    state, keeper, progress = make_state(), budget(), []
    state.horizon = Horizon(keeper.steps_left(0, 0.5 / factor, elapsed_s=0.0))
    while state.step < state.horizon.end_step:
        take_step(state, 0.5, keeper)
        progress.append(state.progress)
    assert len(progress) == pytest.approx(200, abs=3)
    # The first tenth of the time may pass at the wrong pace; the rest is even.
    assert progress[100] == pytest.approx(0.5, abs=0.05)


def test_end_that_does_not_move_keeps_the_same_horizon_object(make_state: MakeState) -> None:
    """Other processes only receive horizons that moved, so a new but equal one would differ from theirs."""
    state, keeper = make_state(), budget(max_steps=200)
    state.horizon = before = Horizon(200)
    for _ in range(100):
        assert not take_step(state, 0.25, keeper)  # twice as fast as necessary, so the step limit decides
        assert state.horizon is before


def test_step_that_takes_all_the_time_is_the_last_one(make_state: MakeState) -> None:
    state = make_state()
    run(state, budget(reserve_s=5.0), lambda spent_s: 500.0 if 3.0 < spent_s < 10.0 else 0.5)
    assert state.progress == 1.0
    assert state.elapsed_s == pytest.approx(3.5 + 500.0)


def test_first_step_that_takes_all_the_time_is_the_last_one(make_state: MakeState) -> None:
    state = make_state(end_step=500)
    assert take_step(state, 300.0, budget(reserve_s=5.0, max_steps=1_000))
    assert state.horizon.end_step == 1


@pytest.mark.parametrize("least_steps", [0, 1])
def test_run_takes_the_first_step_only_if_it_fits_or_there_is_no_model_yet(
    make_state: MakeState, least_steps: int
) -> None:
    state, pace = make_state(), Pace(((0.0, 1.0, 60.0),))
    Budget(TimeLimit(60.0, 5.0), 1_000, pace, least_steps).begin(state, elapsed_s=10.0)
    assert (state.horizon.end_step, state.progress) == (least_steps, 1.0 - least_steps)


def test_stopped_clock_ends_the_run_at_its_step_limit(make_state: MakeState) -> None:
    state, keeper = make_state(end_step=50), budget(reserve_s=5.0, max_steps=90)
    while state.step < state.horizon.end_step:
        take_step(state, 0.0, keeper)
    assert state.step == 90


def test_refused_steps_do_not_move_the_end(make_state: MakeState) -> None:
    state, keeper = make_state(end_step=50), budget(reserve_s=5.0, max_steps=1_000)
    for _ in range(5):
        state.elapsed_s += 1.0
        assert not keeper.revise(state)


def test_run_that_went_back_to_a_checkpoint_still_ends_on_time(make_state: MakeState) -> None:
    state, keeper = make_state(end_step=100), budget()
    keeper.revise(state)
    for _ in range(98):
        take_step(state, 1.0, keeper)
    # Back at step 50 with the horizon of that time: 2 s and 50 steps are left.
    state.step, state.horizon = 50, Horizon(100)
    while state.step < state.horizon.end_step:
        take_step(state, 1.0, keeper)
    assert state.elapsed_s <= 101.0


def test_revision_without_effect_returns_false(make_state: MakeState) -> None:
    state, keeper, moved = make_state(end_step=50), budget(limit_s=1e6, max_steps=50), []
    while state.step < state.horizon.end_step:
        moved.append(take_step(state, 1.0, keeper))
    assert not any(moved)
    assert state.step == 50


def test_mean_of_a_pace_weights_stretches_by_progress() -> None:
    pace = Pace(((0.0, 0.25, 2.0), (0.25, 0.5, 4.0), (0.5, 1.0, 6.0)))
    assert pace.mean_s() == pace.mean_s(0.0, 1.0) == pytest.approx(4.5)
    assert pace.mean_s(0.125, 0.375) == pytest.approx(3.0)
    assert [pace.mean_s(at, at) for at in (0.1, 0.25, 1.0)] == [2.0, 4.0, 6.0]


def test_run_whose_steps_get_slower_ends_on_time_with_an_even_schedule(make_state: MakeState) -> None:
    """Half of the steps cost one second, the other half four: progress is 0.5 after half of the steps."""
    state, pace = make_state(), Pace(((0.0, 0.5, 1.0), (0.5, 1.0, 4.0)))
    keeper = budget(limit_s=500.0, max_steps=10_000, pace=pace)
    state.horizon = Horizon(10_000)
    keeper.begin(state, elapsed_s=0.0)
    ends = [state.horizon.end_step]
    while state.step < state.horizon.end_step:
        take_step(state, 1.0 if state.progress < 0.5 else 4.0, keeper)
        ends.append(state.horizon.end_step)
    assert state.elapsed_s == pytest.approx(500.0, rel=0.02)
    assert state.step == pytest.approx(200, rel=0.03)
    assert max(ends) <= 1.03 * 200
