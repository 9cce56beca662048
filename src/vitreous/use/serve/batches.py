"""Items of concurrent requests -> batches, which one thread computes one after the other."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

Compute = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass
class _Job:
    compute: Compute
    items: Sequence[Any]
    future: "Future[list[Any]]" = field(default_factory=Future)


class Batcher:
    """Computes in batches: what arrives while one is computed is the next one.

    Nothing waits for a batch to fill: a single client is answered at once, batches grow with the load, and an item
    waits only for those that came before it. A batch has at most `most` items, unless a single job has more.
    """

    def __init__(self, most: int) -> None:
        self.num_batches = self.num_items = 0
        self._most, self._is_closed = most, False
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="vitreous-model", daemon=True)
        self._thread.start()

    def submit(self, compute: Compute, items: Sequence[Any]) -> "Future[list[Any]]":
        """Return the future results of `compute(items)`; jobs with equal functions may be computed as one batch."""
        job = _Job(compute, items)
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Compute what is waiting, then end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            if wanted := [job for job in jobs if job.future.set_running_or_notify_cancel()]:
                self._compute(wanted)

    def _next(self) -> list[_Job]:
        """Wait for a job; return it and those with the same function that fit into its batch. Empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            batch: list[_Job] = []
            rest, count = deque[_Job](), 0
            for job in self._waiting:
                fits = not batch or (job.compute == batch[0].compute and count + len(job.items) <= self._most)
                (batch if fits else rest).append(job)
                count += len(job.items) if fits else 0
            self._waiting = rest
            return batch

    def _compute(self, jobs: Sequence[_Job]) -> None:
        items = [item for job in jobs for item in job.items]
        self.num_batches, self.num_items = self.num_batches + 1, self.num_items + len(items)
        try:
            results = iter(jobs[0].compute(items))
            found = [[next(results) for _ in job.items] for job in jobs]
        except Exception as error:
            for job in jobs:
                job.future.set_exception(error)
        else:
            for job, own in zip(jobs, found, strict=True):
                job.future.set_result(own)
