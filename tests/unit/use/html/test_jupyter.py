"""What a cell of a notebook shows: progress while a run trains, the run with its report afterwards."""

import html
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from vitreous.use.html import jupyter
from vitreous.use.html.jupyter import NotebookProgress, in_notebook
from vitreous.use.run import Run

STEP = {"epoch": 2.0, "loss": 0.5, "accuracy": 0.75, "images_per_s": 1234.5, "progress": 0.5, "elapsed_s": 60.0}
METRICS = {"accuracy": 0.9, "interval_95": [0.8, 0.95], "num_images": 50, "num_correct": 45, "loss": 0.1}


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The contents of a cell, newest last, in a kernel that is made up."""
    shown: list[str] = []
    display = types.ModuleType("IPython.display")
    display.HTML = lambda text: text  # type: ignore[attr-defined]
    handle = types.SimpleNamespace(update=shown.append)
    display.display = lambda text, display_id: handle  # type: ignore[attr-defined]
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def text(content: str) -> list[str]:
    """Return the lines of the text of a page."""
    return [html.unescape(line) for line in re.sub(r"<[^>]+>", "\n", content).split("\n") if line.strip()]


def test_only_a_kernel_is_a_notebook(cell: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_notebook()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: object())  # IPython on a terminal
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_cell_shows_plan_progress_notes_and_result(cell: list[str]) -> None:
    progress = NotebookProgress()
    progress.listen("start", {"run": "runs/x"})
    progress.listen("plan", {"summary": ["61 images"], "notes": ["few <b>images</b>"], "choices": []})
    progress.listen("reading", {"what": "decoding", "done": 30, "total": 60})
    progress.listen("fit", {"budget_s": 0.0})
    progress.listen("step", STEP)
    progress.listen("health", {"step": 3, "notes": ["the loss grows"]})
    assert text(cell[-1]) == [
        "run folder: runs/x", "61 images", " training  50%  epoch 2.0  1,234 images/s", "loss          0.500",
        "accuracy      75.0%", "note: few <b>images</b>", "note: the loss grows",
    ]  # fmt: skip
    progress.listen("end", {"metrics": {"test": METRICS}})
    assert "test accuracy: 90.0% (45 of 50 images correct; 95% interval 80.0% to 95.0%)" in text(cell[-1])
    assert "<progress" not in cell[-1]


def test_frequent_events_do_not_redraw_the_cell_each_time(cell: list[str]) -> None:
    progress = NotebookProgress()
    for number in range(1000):
        progress.listen("progress", STEP | {"progress": number / 1000})
    assert 1 <= len(cell) < 100


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of which only the metadata is known, with a report."""
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "report.html").write_text("<p title=\"a\">Ä & 'b'</p><script>parent.hack()</script>", encoding="utf-8")
    made = Run.__new__(Run)
    made.path, made._model_file = tmp_path, tmp_path / "model.safetensors"
    made.__dict__["metadata"] = {"classes": ["<i>", "b"], "metrics": {"test": METRICS}}
    return made


def frame(shown: str) -> dict[str, str]:
    found = re.search(r"<iframe (.*?)></iframe>", shown, re.DOTALL)
    assert found
    return dict(re.findall(r'(\w+)="([^"]*)"', found[1]))


def test_run_shows_accuracy_and_its_whole_report(run: Run) -> None:
    shown = run._repr_html_()
    assert text(shown.partition("<iframe")[0]) == [
        "test accuracy: 90.0% (45 of 50 images correct; 95% interval 80.0% to 95.0%)",
        f"{run.path}: 2 classes (<i> and b)",
    ]
    assert html.unescape(frame(shown)["srcdoc"]) == (run.path / "report.html").read_text(encoding="utf-8")


def test_report_of_a_stranger_cannot_reach_the_notebook(run: Run) -> None:
    shown = run._repr_html_()
    assert frame(shown)["sandbox"] == "allow-scripts"  # without allow-same-origin
    assert "<script" not in shown


def test_large_or_missing_report_is_not_embedded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyter, "_MOST_BYTES", 10)
    assert "<iframe" not in run._repr_html_()
    assert f"report: {run.path / 'report.html'}" in text(run._repr_html_())[1]
    (run.path / "report.html").unlink()
    assert "report" not in run._repr_html_().replace(str(run.path), "")


def test_training_in_a_kernel_shows_its_progress(cell: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import vitreous.api

    listen: Any = vitreous.api._listener()
    listen("start", {"run": "runs/x"})
    assert text(cell[-1]) == ["run folder: runs/x"]
    monkeypatch.delitem(sys.modules, "IPython")
    assert vitreous.api._listener() is vitreous.api.log
