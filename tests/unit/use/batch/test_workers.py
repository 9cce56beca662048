"""do_parts: every part is done once, whatever happens to the workers."""

from collections import deque
from collections.abc import Sequence

import pytest

from vitreous.data.decoding.depth import Clipped
from vitreous.errors import ConfigError, RunError
from vitreous.use.batch.job import Part
from vitreous.use.batch.workers import MAX_LOSSES, Death, Worker, Workers, do_parts
from vitreous.use.predict.listing import Named

PARTS = [(number, [(f"{number}", b"")]) for number in range(5)]


class Fake(Worker):
    """A worker whose results are a script: a text says why it died, an exception is raised, None is its part."""

    def __init__(self, script: list[str | Exception | None]) -> None:
        self.script, self.images, self.is_stopped = deque[str | Exception | None](script), [("", b"")], False

    def begin(self, images: Sequence[Named]) -> None:
        self.images = list(images)

    def result(self) -> Part | Death | None:
        found = self.script.popleft() if self.script else None
        if isinstance(found, str):
            return Death(found)
        if found is not None:
            raise found
        name = self.images[0][0]
        return Part(name.encode(), 1, 0, (), Clipped()) if name else None

    def stop(self) -> None:
        self.is_stopped = True


class Fakes(Workers):
    """Workers with these scripts, and then workers that never fail; those of `pending` never get ready."""

    def __init__(self, scripts: list[list[str | Exception | None]], pending: int = 0) -> None:
        self.scripts, self.pending, self.started = deque(scripts), pending, list[Fake]()

    def start(self) -> Fake:
        self.started.append(Fake(self.scripts.popleft() if self.scripts else []))
        return self.started[-1]

    def finished(self, busy: Sequence[Worker]) -> list[Worker]:
        return [worker for worker in busy if worker not in self.started[: self.pending]][-1:]


def done(workers: Workers, num_workers: int = 2) -> list[int]:
    found = list(do_parts(workers, num_workers, PARTS, len(PARTS)))
    assert [part.content for _, part in found] == [str(number).encode() for number, _ in found]
    return sorted(number for number, _ in found)


def test_every_part_is_done_once_and_all_workers_are_stopped() -> None:
    workers = Fakes([])
    assert done(workers) == [0, 1, 2, 3, 4]
    assert all(worker.is_stopped for worker in workers.started)


@pytest.mark.parametrize("script", [["gone"], [None, "gone"], [None, None, "gone"]], ids=["start", "first", "second"])
def test_part_of_a_worker_that_died_is_done_by_another_one(script: list[str | Exception | None]) -> None:
    workers = Fakes([[], script])
    assert done(workers) == [0, 1, 2, 3, 4]
    assert len(workers.started) == 3


def test_workers_that_never_start_do_not_keep_the_others_waiting() -> None:
    workers = Fakes([], pending=1)
    assert done(workers, 3) == [0, 1, 2, 3, 4]
    assert workers.started[0].is_stopped


def test_part_that_kills_its_workers_ends_the_work() -> None:
    workers = Fakes([[None, "exit code -9"]] * MAX_LOSSES)
    with pytest.raises(RunError, match=r"workers: 3 processes died while they classified part 0 \(.*-9.*--workers"):
        done(workers, 1)
    assert all(worker.is_stopped for worker in workers.started)


def test_workers_that_die_before_they_are_ready_end_the_work() -> None:
    with pytest.raises(RunError, match="3 processes died before they were ready"):
        done(Fakes([["gone"]] * MAX_LOSSES), 1)


def test_losses_do_not_add_up_over_a_long_time() -> None:
    scripts: list[list[str | Exception | None]] = [[None, None, "gone"], ["gone"], ["gone"]] * 2
    assert done(Fakes(scripts), 1) == [0, 1, 2, 3, 4]


def test_error_of_a_worker_ends_the_work_and_stops_the_others() -> None:
    workers = Fakes([[], [None, ConfigError("wrong")]])
    with pytest.raises(ConfigError, match="wrong"):
        done(workers)
    assert all(worker.is_stopped for worker in workers.started)
