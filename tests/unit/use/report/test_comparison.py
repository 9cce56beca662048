"""Several runs on one page: accuracies, paired differences, settings that differ."""

import json
from collections.abc import Callable
from html import escape
from pathlib import Path

import pytest
from tests.unit.use.report.test_page import Page

from vitreous.errors import ConfigError
from vitreous.use.report.comparison import MOST_RUNS, write_comparison
from vitreous.use.run import Run
from vitreous.use.series.compare import compare


@pytest.fixture(scope="module")
def other(run_on: Callable[..., Run], photos: Path) -> Run:
    """A run with another learning rate."""
    return run_on(photos, name="<i>other", **{"optim.lr": 0.0005, "train.epochs": 0.5})


def test_differences_are_those_of_compare_and_settings_are_those_that_differ(
    run: Run, other: Run, tmp_path: Path
) -> None:
    write_comparison([run.path, other.path], tmp_path / "both.html")
    html = (tmp_path / "both.html").read_text(encoding="utf-8")
    page, numbers = Page(html), json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))
    runs = {"1: tiny run": run, "2: <i>other": other}
    best = max(runs, key=lambda label: runs[label].accuracy)
    (second,) = set(runs) - {best}
    expected = compare(runs[best].path, runs[second].path)
    assert numbers["best"] == best
    assert numbers["differences"][second]["interval_95"] == list(expected.interval_95)
    assert f"{100 * expected.difference:+.1f} points" in page.texts
    assert {name: found["accuracy"] for name, found in numbers["runs"].items()} == {
        name: found.accuracy for name, found in runs.items()
    }
    assert numbers["settings"]["optim.lr"] == ["0.003", "0.0005"]
    assert set(numbers["settings"]) == {"optim.lr", "train.epochs"}
    assert escape("2: <i>other") in html
    assert "i" not in {tag for tag, _ in page.tags}
    assert [attrs.get("role") for tag, attrs in page.tags if tag == "svg"].count("img") == 2


def test_a_run_compared_with_its_copy_is_not_distinguishable(run: Run, own_run: Run, tmp_path: Path) -> None:
    write_comparison([run.path, own_run.path], tmp_path / "both.html")
    texts = Page((tmp_path / "both.html").read_text(encoding="utf-8")).texts
    assert {"the best", "not distinguishable", "+0.0 points"} <= set(texts)


def test_a_run_without_test_images_is_listed_without_a_difference(run: Run, blind_run: Run, tmp_path: Path) -> None:
    write_comparison([blind_run.path, run.path], tmp_path / "both.html")
    texts = Page((tmp_path / "both.html").read_text(encoding="utf-8")).texts
    assert {"unknown", "the best"} <= set(texts)
    assert any("has no test images" in text for text in texts)


def test_too_many_runs_or_one_twice_are_refused(run: Run, tmp_path: Path) -> None:
    for runs in ([run.path, run.path], [tmp_path / str(number) for number in range(MOST_RUNS + 1)]):
        with pytest.raises(ConfigError, match=rf"^runs={len(runs)}: .*; give 2 to {MOST_RUNS} runs$"):
            write_comparison(runs, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
