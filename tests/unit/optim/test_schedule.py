import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.optim.schedule import warmup_cosine

progress = st.floats(0, 1)
warmup_ratio = st.floats(0, 0.99)


@pytest.mark.parametrize("warmup", [0.05, 0.3, 0.9])
def test_rate_is_zero_at_both_ends_and_peaks_where_the_warmup_ends(warmup: float) -> None:
    assert warmup_cosine(0.0, warmup_ratio=warmup) == 0.0
    assert warmup_cosine(warmup, warmup_ratio=warmup) == 1.0
    assert warmup_cosine(1.0, warmup_ratio=warmup) == pytest.approx(0.0, abs=1e-15)


def test_without_warmup_the_run_begins_at_the_peak() -> None:
    assert warmup_cosine(0.0, warmup_ratio=0.0) == 1.0


def test_rise_is_linear_and_fall_is_half_a_cosine() -> None:
    assert warmup_cosine(0.05, warmup_ratio=0.2) == pytest.approx(0.25)
    assert warmup_cosine(0.6, warmup_ratio=0.2) == pytest.approx(0.5)
    assert warmup_cosine(0.4, warmup_ratio=0.2) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_past_the_end_the_rate_stays_zero() -> None:
    assert warmup_cosine(1.75, warmup_ratio=0.1) == pytest.approx(0.0, abs=1e-15)


@settings(deadline=None)
@given(progress, warmup_ratio)
def test_rate_is_a_share_of_the_peak(at: float, warmup: float) -> None:
    assert 0 <= warmup_cosine(at, warmup_ratio=warmup) <= 1


@settings(deadline=None)
@given(progress, progress, warmup_ratio)
def test_rate_rises_until_the_warmup_ends_and_falls_ever_after(one: float, other: float, warmup: float) -> None:
    early, late = sorted((one, other))
    rates = [warmup_cosine(at, warmup_ratio=warmup) for at in (early, late)]
    if late <= warmup:
        assert rates[0] <= rates[1]
    if early >= warmup:
        assert rates[0] >= rates[1]


@settings(deadline=None)
@given(st.floats(0.01, 0.9), st.floats(1e-9, 1e-6))
def test_rate_does_not_jump_where_the_warmup_ends(warmup: float, gap: float) -> None:
    before, after = (warmup_cosine(warmup + side * gap, warmup_ratio=warmup) for side in (-1, 1))
    assert before == pytest.approx(after, abs=1e-3)
