"""Batcher: items of concurrent jobs are computed together, each job gets its own results, and errors stay with them."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from vitreous.use.serve.batches import Batcher


class Doubled:
    """Doubles numbers, and remembers its batches; the first one waits for the test."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.gate.wait(20)
        return [2 * item for item in items]


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    made = Batcher(most=4)
    yield made
    made.close()


def test_items_that_arrive_during_a_batch_are_the_next_one(batcher: Batcher) -> None:
    work = Doubled()
    first = batcher.submit(work, [1])
    while not work.batches:
        time.sleep(0.001)
    later = [batcher.submit(work, items) for items in ([2], [3, 4], [5], [6])]
    work.gate.set()
    assert first.result(20) == [2]
    assert [future.result(20) for future in later] == [[4], [6, 8], [10], [12]]
    assert work.batches == [[1], [2, 3, 4, 5], [6]]
    assert (batcher.num_batches, batcher.num_items) == (3, 6)


def test_items_of_a_job_are_never_split(batcher: Batcher) -> None:
    work = Doubled()
    work.gate.set()
    assert batcher.submit(work, list(range(9))).result(20) == [2 * n for n in range(9)]
    assert work.batches == [list(range(9))]


def test_job_that_does_not_fit_waits_but_smaller_ones_go_first(batcher: Batcher) -> None:
    work = Doubled()
    batcher.submit(work, [0])
    while not work.batches:
        time.sleep(0.001)
    futures = [batcher.submit(work, items) for items in ([1, 2, 3], [4, 5], [6])]
    work.gate.set()
    assert [future.result(20) for future in futures] == [[2, 4, 6], [8, 10], [12]]
    assert work.batches == [[0], [1, 2, 3, 6], [4, 5]]


def test_different_functions_are_not_mixed(batcher: Batcher) -> None:
    first, second = Doubled(), Doubled()
    second.gate.set()
    started = batcher.submit(first, [1])
    while not first.batches:
        time.sleep(0.001)
    futures = [batcher.submit(work, [n]) for n, work in enumerate((first, second, first, second))]
    first.gate.set()
    assert started.result(20) == [2]
    assert [future.result(20) for future in futures] == [[0], [2], [4], [6]]
    assert (first.batches, second.batches) == ([[1], [0, 2]], [[1, 3]])


def test_error_reaches_all_jobs_of_its_batch_and_no_other(batcher: Batcher) -> None:
    def fail(items: Sequence[Any]) -> list[Any]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        batcher.submit(fail, [1]).result(20)
    work = Doubled()
    work.gate.set()
    assert batcher.submit(work, [1]).result(20) == [2]


def test_canceled_job_is_not_computed(batcher: Batcher) -> None:
    work = Doubled()
    started = batcher.submit(work, [1])
    while not work.batches:
        time.sleep(0.001)
    canceled, kept = batcher.submit(work, [2]), batcher.submit(work, [3])
    assert canceled.cancel()
    work.gate.set()
    assert (started.result(20), kept.result(20)) == ([2], [6])
    assert work.batches == [[1], [3]]


def test_many_threads_get_their_own_results(batcher: Batcher) -> None:
    work = Doubled()
    work.gate.set()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: batcher.submit(work, [n, -n]).result(20), range(500)))
    assert found == [[2 * n, -2 * n] for n in range(500)]
    assert max(map(len, work.batches)) <= 4


def test_closed_batcher_has_computed_what_was_waiting() -> None:
    batcher, work = Batcher(most=4), Doubled()
    futures = [batcher.submit(work, [n]) for n in range(10)]
    work.gate.set()
    batcher.close()
    assert [future.result(0) for future in futures] == [[2 * n] for n in range(10)]
