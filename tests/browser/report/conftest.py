"""A report with photos, in a headless browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser.runtime import CHROMIUM, Browser
from tests.unit.use.conftest import photos, run, run_on  # noqa: F401

from vitreous.use.run import Run


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless browser; skips the test if there is none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, e.g. Debian's package chromium")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(run: Run) -> Path:  # noqa: F811
    """The report of a run on photos."""
    return run.path / "report.html"
