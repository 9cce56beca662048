"""`begin` writes a folder of six parts from few photos, of which one cannot be read."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vitreous.training.folder.records import Listener, ignore
from vitreous.use.batch.job import Job, Part
from vitreous.use.batch.part_folder import PartFolder
from vitreous.use.batch.write import Engine, write_parts
from vitreous.use.evaluate.sets.decide import Decisions
from vitreous.use.predict.listing import Named, list_data
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run

Begin = Callable[..., PartFolder]
HERE = Engine("local", "cpu", workers=1)


@dataclass(frozen=True, eq=False)
class DyingOnce(Job):
    """A job that kills the first process that reaches its third batch, which leaves a file."""

    marker: Path = Path()

    def part(self, named: Sequence[Named]) -> Part:
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return super().part(named)
        super().part(named[:128])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def dying_once(marker: Path) -> Callable[[Job], Job]:
    """Return what makes a job kill a process once."""
    return lambda job: DyingOnce(**vars(job), marker=marker)


@pytest.fixture
def images(photos: Path, broken_png: Path) -> list[str]:
    """1,369 images, which are 72 photos many times, and a file that is not one."""
    return [*[str(photos)] * 19, str(broken_png)]


@pytest.fixture
def begin(run: Run, images: list[str]) -> Begin:
    """Write the parts of a folder, or those that are missing."""

    def write(
        out: Path,
        engine: Engine = HERE,
        listener: Listener = ignore,
        suffix: str = ".csv",
        change: Callable[[Job], Job] = lambda job: job,
        **other: Any,
    ) -> PartFolder:
        job = Job.of(Predictor.load(other.pop("run", run.path)), other.pop("decide", Decisions()), suffix)
        listing = list_data(other.pop("images", images))
        return write_parts(out, listing, change(job), {"tta": 1, **other}, engine, listener)

    return write
