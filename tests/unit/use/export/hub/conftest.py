"""A run whose model timm has too."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vitreous.use.run import Run


@pytest.fixture(scope="session")
def run(run_on: Callable[..., Run], photos: Path) -> Run:
    """A finished run on the photos, without the stem that small images get; do not modify."""
    return run_on(photos, name="tiny run", **{"model.stem": "linear"})
