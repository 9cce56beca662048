import threading
from collections.abc import Iterator

import pytest
import torch

from vitreous.data.workers import compute_chunks, map_in_order, num_threads


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_results_are_in_order_for_any_count(count: int) -> None:
    assert map_in_order(lambda item: item * item, count) == [item * item for item in range(count)]


def test_progress_rises_to_the_total() -> None:
    seen: list[tuple[int, int]] = []
    map_in_order(lambda item: item, 333, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (333, 333)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_first_error_is_raised_and_all_threads_end() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        map_in_order(lambda item: 1 // (item - 3), 500)
    assert threading.active_count() == before


def test_number_of_threads_is_from_one_to_sixteen() -> None:
    assert 1 <= num_threads() <= 16


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_chunks_run_in_parallel_with_one_pytorch_thread_each() -> None:
    both_running, threads = threading.Barrier(2), list[int]()

    def work(chunk: slice) -> None:
        both_running.wait(timeout=60)  # returns only if both chunks run at the same time
        threads.append(torch.get_num_threads())

    compute_chunks(work, [slice(0, 3), slice(3, 5)])
    assert threads == [1, 1]
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    late = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert seen == [2]


@pytest.mark.usefixtures("two_threads")
def test_error_in_a_chunk_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        compute_chunks(lambda chunk: print(1 // (chunk.start - 3)), [slice(0, 3), slice(3, 5)])
