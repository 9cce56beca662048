"""A report with photos, in a headless browser."""

from pathlib import Path

import pytest
from tests.unit.use.conftest import photos, run, run_on  # noqa: F401

from vitreous.use.run import Run


@pytest.fixture(scope="module")
def page(run: Run) -> Path:  # noqa: F811
    """The report of a run on photos."""
    return run.path / "report.html"
