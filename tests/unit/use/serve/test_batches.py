"""Batcher: items of concurrent jobs are computed together, each job gets its own results, and errors stay with them."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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


class Asked:
    """A batcher of batches of 4, and the event loop of those that ask it, which runs in a thread of its own."""

    def __init__(self) -> None:
        self.batcher = Batcher(most=4, num_threads=1)  # with one thread, jobs are ready in the order of their arrival
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def submit(self, compute: Any, items: Sequence[Any], prepare: Callable[[Any], Any] = int) -> "Future[list[Any]]":
        return asyncio.run_coroutine_threadsafe(self.batcher.submit(compute, items, prepare), self.loop)

    def close(self) -> None:
        self.batcher.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def batcher() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.close()


def wait_until_ready(asked: Asked, count: int) -> None:
    """Wait until this number of jobs is ready to be computed."""
    end = time.monotonic() + 20
    while len(asked.batcher._ready) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_items_that_arrive_during_a_batch_are_the_next_one(batcher: Asked) -> None:
    work = Doubled()
    first = batcher.submit(work, [1])
    while not work.batches:
        time.sleep(0.001)
    later = [batcher.submit(work, items) for items in ([2], [3, 4], [5], [6])]
    wait_until_ready(batcher, 4)
    work.gate.set()
    assert first.result(20) == [2]
    assert [future.result(20) for future in later] == [[4], [6, 8], [10], [12]]
    assert work.batches == [[1], [2, 3, 4, 5], [6]]
    assert (batcher.batcher.num_batches, batcher.batcher.num_items) == (3, 6)


def test_items_of_a_job_are_never_split(batcher: Asked) -> None:
    work = Doubled()
    work.gate.set()
    assert batcher.submit(work, list(range(9))).result(20) == [2 * n for n in range(9)]
    assert work.batches == [list(range(9))]


def test_job_that_does_not_fit_waits_but_smaller_ones_go_first(batcher: Asked) -> None:
    work = Doubled()
    batcher.submit(work, [0])
    while not work.batches:
        time.sleep(0.001)
    futures = [batcher.submit(work, items) for items in ([1, 2, 3], [4, 5], [6])]
    wait_until_ready(batcher, 3)
    work.gate.set()
    assert [future.result(20) for future in futures] == [[2, 4, 6], [8, 10], [12]]
    assert work.batches == [[0], [1, 2, 3, 6], [4, 5]]


def test_different_functions_are_not_mixed(batcher: Asked) -> None:
    first, second = Doubled(), Doubled()
    second.gate.set()
    started = batcher.submit(first, [1])
    while not first.batches:
        time.sleep(0.001)
    futures = [batcher.submit(work, [n]) for n, work in enumerate((first, second, first, second))]
    wait_until_ready(batcher, 4)
    first.gate.set()
    assert started.result(20) == [2]
    assert [future.result(20) for future in futures] == [[0], [2], [4], [6]]
    assert (first.batches, second.batches) == ([[1], [0, 2]], [[1, 3]])


def test_error_reaches_all_jobs_of_its_batch_and_no_other(batcher: Asked) -> None:
    def fail(items: Sequence[Any]) -> list[Any]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        batcher.submit(fail, [1]).result(20)
    work = Doubled()
    work.gate.set()
    assert batcher.submit(work, [1]).result(20) == [2]


def test_canceled_job_is_not_computed(batcher: Asked) -> None:
    work = Doubled()
    started = batcher.submit(work, [1])
    while not work.batches:
        time.sleep(0.001)
    canceled, kept = batcher.submit(work, [2]), batcher.submit(work, [3])
    wait_until_ready(batcher, 2)
    assert canceled.cancel()
    while not batcher.batcher._ready[0].future.done():
        time.sleep(0.001)
    work.gate.set()
    assert (started.result(20), kept.result(20)) == ([2], [6])
    assert work.batches == [[1], [3]]


def test_many_threads_get_their_own_results(batcher: Asked) -> None:
    work = Doubled()
    work.gate.set()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: batcher.submit(work, [n, -n]).result(20), range(500)))
    assert found == [[2 * n, -2 * n] for n in range(500)]
    assert max(map(len, work.batches)) <= 4


def test_items_are_prepared_before_they_are_computed_and_in_their_order(batcher: Asked) -> None:
    work = Doubled()
    work.gate.set()
    assert batcher.submit(work, ["3", "1", "2"], int).result(20) == [6, 2, 4]
    assert work.batches == [[3, 1, 2]]


def test_error_of_an_item_that_is_prepared_fails_only_its_job(batcher: Asked) -> None:
    work = Doubled()
    work.gate.set()
    bad, good = batcher.submit(work, ["1", "one", "two"]), batcher.submit(work, ["4"])
    with pytest.raises(ValueError, match="'one'"):
        bad.result(20)
    assert good.result(20) == [8]
    assert work.batches == [[4]]


def test_closed_batcher_has_computed_what_was_waiting(batcher: Asked) -> None:
    work = Doubled()
    futures = [batcher.submit(work, [0])]
    while not work.batches:
        time.sleep(0.001)
    futures += [batcher.submit(work, [n]) for n in range(1, 10)]
    wait_until_ready(batcher, 9)
    work.gate.set()
    batcher.batcher.close()
    assert [future.result(20) for future in futures] == [[2 * n] for n in range(10)]
