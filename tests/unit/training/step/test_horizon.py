import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.training.step.horizon import Horizon

revisions = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 400)), max_size=8)


def test_progress_grows_from_zero_to_one() -> None:
    assert [Horizon(4).progress(step) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_run_without_steps_is_complete() -> None:
    assert Horizon(0).progress(0) == 1.0


def test_revision_changes_the_pace_and_not_the_progress() -> None:
    revised = Horizon(100).revised(50, steps_left=10)
    assert revised.end_step == 60
    assert [revised.progress(step) for step in (50, 55, 60)] == [0.5, 0.75, 1.0]


@pytest.mark.parametrize("steps_left", [0, -7])
def test_revision_can_end_the_run_at_once(steps_left: int) -> None:
    ended = Horizon(100).revised(50, steps_left=steps_left)
    assert (ended.end_step, ended.progress(50)) == (50, 1.0)


@settings(deadline=None)
@given(st.integers(1, 300), revisions)
def test_progress_is_continuous_and_monotonic_through_any_revisions(
    end_step: int, plan: list[tuple[float, int]]
) -> None:
    horizon, step, seen = Horizon(end_step), 0, [0.0]
    for share, steps_left in plan:
        for _ in range(int(share * (horizon.end_step - step - 1))):
            step += 1
            seen.append(horizon.progress(step))
        before = horizon.progress(step)
        horizon = horizon.revised(step, steps_left=steps_left)
        assert horizon.progress(step) == before
        assert horizon.end_step > step
    while step < horizon.end_step:
        step += 1
        seen.append(horizon.progress(step))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert all(0 <= progress <= 1 for progress in seen)


@settings(deadline=None)
@given(st.integers(1, 300), revisions)
def test_progress_is_below_one_before_the_last_step(end_step: int, plan: list[tuple[float, int]]) -> None:
    horizon, step = Horizon(end_step), 0
    for share, steps_left in plan:
        step += int(share * (horizon.end_step - step - 1))
        horizon = horizon.revised(step, steps_left=steps_left)
    assert horizon.progress(horizon.end_step - 1) < 1.0
