"""Parts of a job, workers -> finished parts in any order; the part of a worker that died is done by another one."""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vitreous.errors import RunError
from vitreous.use.batch.job import Part
from vitreous.use.predict.listing import Named

MAX_LOSSES = 3
"""How many workers may die over one part, or in a row before they are ready."""

Numbered = tuple[int, Sequence[Named]]
"""The number of a part, and its images."""


@dataclass(frozen=True)
class Death:
    """The end of a worker without an answer: its part must be done again. The reason is a clause."""

    reason: str


class Worker(ABC):
    """A process that first prepares itself, then classifies one part at a time."""

    @abstractmethod
    def begin(self, images: Sequence[Named]) -> None:
        """Start with a part."""

    @abstractmethod
    def result(self) -> Part | Death | None:
        """Wait for the part that was begun, for None once the worker is ready, or for its death.

        Raises:
            Exception: Raised by the worker.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the worker at once."""


class Workers(ABC):
    """Where workers run."""

    @abstractmethod
    def start(self) -> Worker:
        """Start a worker, without waiting until it is ready."""

    @abstractmethod
    def finished(self, busy: Sequence[Worker]) -> Sequence[Worker]:
        """Wait until at least one worker has a result or has died, and return these."""


def do_parts(
    workers: Workers, num_workers: int, parts: Iterable[Numbered], num_parts: int
) -> Iterator[tuple[int, Part]]:
    """Yield the number and the table of each part, as soon as it is finished.

    Workers that are not ready yet, perhaps because a cluster is still growing, do not keep the others waiting.

    Raises:
        RunError: Workers died again and again, over one part or before they were ready.
        Exception: Raised by a worker.
    """
    rest, again, losses = iter(parts), deque[Numbered](), Counter[int | None]()
    busy: dict[Worker, Numbered | None] = {}
    try:
        for _ in range(num_workers):
            busy[workers.start()] = None
        while num_parts:
            for worker in workers.finished(list(busy)):
                task, part = busy[worker], worker.result()
                number = None if task is None else task[0]
                if isinstance(part, Death):
                    del busy[worker]
                    worker.stop()
                    losses[number] += 1
                    if losses[number] >= MAX_LOSSES:
                        raise _lost(number, part.reason)
                    again.extend([] if task is None else [task])
                    busy[workers.start()] = None
                    continue
                losses[number] = 0
                following = again.popleft() if again else next(rest, None)
                if following is None:
                    del busy[worker]
                    worker.stop()
                else:
                    busy[worker] = following
                    worker.begin(following[1])
                if part is not None and number is not None:
                    num_parts -= 1
                    yield number, part
    finally:
        for worker in busy:
            worker.stop()


def _lost(number: int | None, reason: str) -> RunError:
    when = "before they were ready" if number is None else f"while they classified part {number}"
    return RunError(
        f"workers: {MAX_LOSSES} processes died {when} ({reason}), perhaps because there was too little memory; run the "
        "command again with fewer --workers to continue"
    )
