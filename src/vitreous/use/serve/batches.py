"""Items of concurrent requests -> batches, which one thread computes one after the other."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Compute = Callable[[Sequence[Any]], Sequence[Any]]
Prepare = Callable[[Any], Any]


@dataclass(eq=False)
class _Job:
    """Items of one request; `num_left` of them are not prepared yet."""

    compute: Compute
    items: list[Any]
    num_left: int
    future: "asyncio.Future[list[Any]]"


class Batcher:
    """Prepares items in `num_threads` threads, and computes them in batches: what is ready while one is computed.

    Nothing waits for a batch to fill: a single client is answered at once, batches grow with the load, and an item
    waits only for those that came before it. A batch has at most `most` items, unless a single job has more.

    Threads that pass on work wait for the interpreter lock, so there are as few passes as possible: from the event
    loop to a thread that prepares, from there to the thread that computes, and back once per batch.
    """

    def __init__(self, most: int, num_threads: int) -> None:
        self.num_batches = self.num_items = 0
        self._most, self._is_closed = most, False
        self._ready: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="vitreous-decode")
        self._thread = threading.Thread(target=self._work, name="vitreous-model", daemon=True)
        self._thread.start()

    async def submit(self, compute: Compute, items: Sequence[Any], prepare: Prepare) -> list[Any]:
        """Return the results of `compute` for what `prepare` makes of each item; both run in other threads.

        Jobs with equal `compute` may be computed as one batch. An exception of either is raised.
        """
        job = _Job(compute, list(items), len(items), asyncio.get_running_loop().create_future())
        for place in range(len(items)):
            self._pool.submit(self._prepare, job, place, prepare)
        return await job.future

    def close(self) -> None:
        """Compute what is waiting, then end the threads."""
        self._pool.shutdown()
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _prepare(self, job: _Job, place: int, prepare: Prepare) -> None:
        if job.future.done():  # the request has been given up
            return
        try:
            job.items[place] = prepare(job.items[place])
        except Exception as error:
            _deliver([job], error)
            return
        with self._changed:
            job.num_left -= 1
            if not job.num_left:
                self._ready.append(job)
                self._changed.notify()

    def _work(self) -> None:
        while jobs := self._next():
            if wanted := [job for job in jobs if not job.future.done()]:
                self._compute(wanted)

    def _next(self) -> list[_Job]:
        """Wait for a job; return it and those with the same function that fit into its batch. Empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._is_closed)
            batch: list[_Job] = []
            rest, count = deque[_Job](), 0
            for job in self._ready:
                fits = not batch or (job.compute == batch[0].compute and count + len(job.items) <= self._most)
                (batch if fits else rest).append(job)
                count += len(job.items) if fits else 0
            self._ready = rest
            return batch

    def _compute(self, jobs: Sequence[_Job]) -> None:
        items = [item for job in jobs for item in job.items]
        self.num_batches, self.num_items = self.num_batches + 1, self.num_items + len(items)
        try:
            results = iter(jobs[0].compute(items))
            found = [[next(results) for _ in job.items] for job in jobs]
        except Exception as error:
            _deliver(jobs, error)
        else:
            _deliver(jobs, found)


def _deliver(jobs: Sequence[_Job], found: Sequence[list[Any]] | Exception) -> None:
    """Give jobs their results, or all of them an exception, in the thread of their event loop."""

    def deliver() -> None:
        for number, job in enumerate(jobs):
            if job.future.done():
                continue
            if isinstance(found, Exception):
                job.future.set_exception(found)
            else:
                job.future.set_result(found[number])

    with suppress(RuntimeError):  # the event loop is closed, so the results are not needed any more
        jobs[0].future.get_loop().call_soon_threadsafe(deliver)
