import threading

import pytest

from vitreous.data.workers import map_in_order, num_threads


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_results_stand_in_order_whatever_the_count(count: int) -> None:
    assert map_in_order(lambda item: item * item, count) == [item * item for item in range(count)]


def test_progress_rises_to_the_total() -> None:
    seen: list[tuple[int, int]] = []
    map_in_order(lambda item: item, 333, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (333, 333)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_first_error_is_raised_and_threads_end() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        map_in_order(lambda item: 1 // (item - 3), 500)
    assert threading.active_count() == before


def test_at_least_one_and_at_most_sixteen_threads() -> None:
    assert 1 <= num_threads() <= 16
