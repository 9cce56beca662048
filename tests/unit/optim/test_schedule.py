import math
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.optim.config import OptimConfig, Schedule
from vitreous.optim.schedule import learning_rate_share

SCHEDULES = get_args(Schedule)
progress = st.floats(0, 1)
warmup_ratio = st.floats(0, 0.6)
cooldown_ratio = st.floats(0.01, 0.4)
schedules = st.sampled_from(SCHEDULES)


def share(at: float, schedule: Schedule = "cosine", warmup: float = 0.0, cooldown: float = 0.2) -> float:
    config = OptimConfig(schedule=schedule, warmup_ratio=warmup, cooldown_ratio=cooldown)
    return learning_rate_share(at, config)


@pytest.mark.parametrize("warmup", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rate_starts_at_zero_and_peaks_at_the_end_of_the_warmup(schedule: Schedule, warmup: float) -> None:
    assert share(0.0, schedule, warmup) == 0.0
    assert share(warmup, schedule, warmup) == 1.0
    assert share(0.25 * warmup, schedule, warmup) == pytest.approx(0.25)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("end", [1.0, 1.75])
def test_rate_ends_at_zero_unless_it_is_constant(schedule: Schedule, end: float) -> None:
    assert share(end, schedule, 0.1) == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warmup_the_run_starts_at_the_peak(schedule: Schedule) -> None:
    assert share(0.0, schedule) == 1.0


def test_cosine_falls_along_half_a_period() -> None:
    assert share(0.6, "cosine", 0.2) == pytest.approx(0.5)
    assert share(0.4, "cosine", 0.2) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_linear_falls_at_a_constant_rate() -> None:
    assert [share(at, "linear", 0.2) for at in (0.3, 0.6, 0.8)] == pytest.approx([0.875, 0.5, 0.25])


def test_wsd_stays_at_its_peak_until_the_cooldown_and_then_falls_with_the_square_root() -> None:
    assert [share(at, "wsd", 0.1, 0.4) for at in (0.1, 0.35, 0.6)] == [1.0, 1.0, pytest.approx(1.0)]
    assert share(0.7, "wsd", 0.1, 0.4) == pytest.approx(0.5)
    assert share(0.96, "wsd", 0.1, 0.4) == pytest.approx(1 - 0.9**0.5)


@settings(deadline=None)
@given(progress, schedules, warmup_ratio, cooldown_ratio)
def test_rate_is_a_fraction_of_the_peak(at: float, schedule: Schedule, warmup: float, cooldown: float) -> None:
    assert 0 <= share(at, schedule, warmup, cooldown) <= 1


@settings(deadline=None)
@given(progress, progress, schedules, warmup_ratio, cooldown_ratio)
def test_rate_rises_until_the_warmup_ends_and_never_after(
    one: float, other: float, schedule: Schedule, warmup: float, cooldown: float
) -> None:
    early, late = sorted((one, other))
    rates = [share(at, schedule, warmup, cooldown) for at in (early, late)]
    if late <= warmup:
        assert rates[0] <= rates[1]
    if early >= warmup:
        assert rates[0] >= rates[1]


@settings(deadline=None)
@given(st.floats(0.01, 0.6), schedules, st.floats(1e-12, 1e-9), st.booleans())
def test_rate_does_not_jump(warmup: float, schedule: Schedule, gap: float, at_cooldown: bool) -> None:
    bend = 0.7 if at_cooldown else warmup
    before, after = (share(bend + side * gap, schedule, warmup, 0.3) for side in (-1, 1))
    assert before == pytest.approx(after, abs=1e-3)
