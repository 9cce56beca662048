"""Tests of hostile inputs: the marker `fuzz`, the fixture `campaign`, and a summary line per domain at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.campaign import campaign

__all__ = ["campaign"]

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.fuzz)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(3600))


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    lines = [text for report in reports for name, text in getattr(report, "user_properties", ()) if name == "fuzz"]
    for line in sorted(set(lines)):
        terminalreporter.write_line(line)
