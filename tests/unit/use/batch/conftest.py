"""`begin` writes a folder of six parts from few photos, of which one cannot be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.training.folder.records import Listener, ignore
from vitreous.use.batch.job import Job
from vitreous.use.batch.part_folder import PartFolder
from vitreous.use.batch.write import Engine, write_parts
from vitreous.use.evaluate.sets.decide import Decisions
from vitreous.use.predict.listing import list_data
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run

Begin = Callable[..., PartFolder]
HERE = Engine("local", "cpu", workers=1)


@pytest.fixture
def images(photos: Path, broken_png: Path) -> list[str]:
    """1,369 images, which are 72 photos many times, and a file that is no image."""
    return [*[str(photos)] * 19, str(broken_png)]


@pytest.fixture
def begin(run: Run, images: list[str]) -> Begin:
    """Write the parts of a folder, or those that are missing."""

    def write(
        out: Path, engine: Engine = HERE, listener: Listener = ignore, suffix: str = ".csv", **other: Any
    ) -> PartFolder:
        job = Job.of(Predictor.load(other.pop("run", run.path)), other.pop("decide", Decisions()), suffix)
        listing = list_data(other.pop("images", images))
        return write_parts(out, listing, job, {"tta": 1, **other}, engine, listener)

    return write
