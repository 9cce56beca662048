"""Independent items -> their results, in order, computed by a few threads.

Pillow and file reads release the interpreter lock, so threads scale with the cores and nothing has to be pickled.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

from vitreous import processes

Result = TypeVar("Result")
Chunk = TypeVar("Chunk")
Progress = Callable[[int, int], None]
"""Called with (done, total) now and then, and at the end."""

# Handing a task to a thread costs about as much as reading one small image, so a task has several items. It must not
# have too many: every thread needs a share of a batch, and `progress` should be called often enough.
_MOST_ITEMS_PER_TASK = 64
_TASKS_PER_THREAD = 8


def map_in_order(work: Callable[[int], Result], count: int, progress: Progress | None = None) -> list[Result]:
    """Return `[work(0), …, work(count − 1)]`, computed by one thread per core.

    `work` must be thread-safe. The first exception, including Ctrl-C, cancels the remaining work and is raised.
    """
    size = max(1, min(_MOST_ITEMS_PER_TASK, count // (num_threads() * _TASKS_PER_THREAD)))
    tasks = [range(start, min(start + size, count)) for start in range(0, count, size)]
    results: list[Result] = []
    pool = ThreadPoolExecutor(num_threads(), thread_name_prefix="vitreous-data")
    try:
        for task_results in pool.map(lambda task: [work(item) for item in task], tasks):
            results.extend(task_results)
            if progress is not None:
                progress(len(results), count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results


def compute_chunks(work: Callable[[Chunk], object], chunks: Sequence[Chunk]) -> None:
    """Run work that consists of many small PyTorch operations on all chunks, each chunk in one thread.

    PyTorch would split each operation among its threads, which gains little if an operation takes microseconds. Here,
    each thread takes whole chunks instead.
    """
    if len(chunks) == 1 or torch.get_num_threads() == 1:
        for chunk in chunks:
            work(chunk)
        return
    pool = _single_threaded_pool(torch.get_num_threads())
    for future in [pool.submit(work, chunk) for chunk in chunks]:
        future.result()


@cache
def _single_threaded_pool(count: int) -> ThreadPoolExecutor:
    """Start `count` threads in which PyTorch operations use one thread each."""
    started = Barrier(count + 1)

    def start() -> None:
        # `set_num_threads` also sets the number for threads that have not used PyTorch yet; it is restored below.
        torch.set_num_threads(1)
        torch.get_num_threads()  # from its first use of PyTorch on, a thread keeps its number
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="vitreous-compute")
    for _ in range(count):
        pool.submit(start)
    started.wait()
    torch.set_num_threads(count)
    return pool


def num_threads() -> int:
    """Return the number of threads that read images: one per core that this process may use, at most 16."""
    return max(1, min(processes.usable_cores() // processes.local_count(), 16))
