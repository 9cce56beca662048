"""A run, or the events of one -> HTML in a cell of a Jupyter notebook. Only this file imports IPython."""

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from vitreous.training.folder.progress import RunProgress
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.headline import accuracy_text, baseline_text, first_model_text
from vitreous.use.evaluate.multilabel import score_name
from vitreous.wording import listed, plural

_MOST_BYTES = 8_000_000
"""Larger reports are only named, because the notebook file keeps what a cell shows."""
_EVERY_S = 0.25
_MOST_NOTES = 20
_FREQUENT = ("progress", "reading", "download", "step")


def in_notebook() -> bool:
    """Return True in a Jupyter kernel, which shows HTML; False in a script and in IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class NotebookProgress:
    """A listener that shows the progress of a run in the cell that trains it, and updates it in place."""

    def __init__(self) -> None:
        self._display = import_module("IPython.display")
        self._handle = self._display.display(self._display.HTML(""), display_id=True)
        self._run, self._shown_s = RunProgress(), -_EVERY_S
        self._lines: list[str] = []
        self._notes: deque[str] = deque(maxlen=_MOST_NOTES)
        self._bar = ("", 0.0, "")

    def listen(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Show an event that a reader of the notebook needs."""
        self._run.listen(kind, fields)
        if kind in ("progress", "step"):
            self._bar = "training", self._run.share, self._run.headline()
        elif kind == "reading":
            text = f"{fields['done']:,} of {plural(fields['total'], 'image')}"
            self._bar = fields["what"], fields["done"] / max(fields["total"], 1), text
        elif kind == "download":
            self._bar = "downloading", fields["share"], fields["text"]
        elif kind == "member":
            self._lines = [f"{fields['name']} ({fields['number']} of {fields['total']})"]
        elif kind == "start":
            self._lines.append(f"run folder: {fields['run']}")
        elif kind == "plan":
            self._lines += fields["summary"]
        elif kind == "first_model":
            self._lines.append(first_model_text(fields))
        elif kind == "end":
            self._bar = ("", 0.0, "")
            self._lines += [text for text in (_score(fields["metrics"]),) if text]
        self._notes += [
            note for note in (*fields.get("notes", ()), *fields.get("findings", ())) if isinstance(note, str)
        ]
        now_s = time.monotonic()
        if kind not in _FREQUENT or now_s - self._shown_s >= _EVERY_S:
            self._shown_s = now_s
            self._handle.update(self._display.HTML(self.html()))

    def html(self) -> str:
        """Return what the cell shows now."""
        what, share, text = self._bar
        bar = (
            f'<progress value="{share:.3f}" max="1"></progress> {escape(f"{what}  {share:.0%}  {text}")}'
            if what
            else ""
        )
        rows = "\n".join(f"{name:<11} {curve}  {value}" for name, curve, value in self._run.rows())
        parts = [*map(escape, self._lines), bar, f"<pre>{escape(rows)}</pre>" if rows else ""]
        parts += [f"note: {escape(note)}" for note in self._notes]
        return "".join(f"<div>{part}</div>" for part in parts if part)


def run_html(path: Path, classes: Sequence[str], metrics: Mapping[str, Mapping[str, Any]], folder: RunFolder) -> str:
    """Return the accuracy of a run, and its report in a frame that cannot reach the notebook."""
    lines = [_score(metrics) or "accuracy unknown: no images were held out"]
    named = f": {plural(len(classes), 'class', 'classes')} ({listed(classes)})" if classes else ""
    report, frame = folder.report, ""
    if report.is_file() and report.stat().st_size <= _MOST_BYTES:
        page = escape(report.read_text(encoding="utf-8", errors="replace"))
        frame = f'<iframe sandbox="allow-scripts" srcdoc="{page}" title="report" width="100%" height="600"></iframe>'
    elif report.is_file():
        lines.append(f"report: {report} ({report.stat().st_size / 1e6:.0f} MB)")
    return "".join(f"<div>{escape(line)}</div>" for line in (*lines, f"{path}{named}")) + frame


def _score(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the accuracy on the images that count, with the baseline; empty if no images were held out."""
    split = scored_split(metrics)
    if split is None:
        return ""
    found = metrics[split]
    accuracy = f"{score_name(found, split)}: {accuracy_text(found)}"
    return "; ".join(filter(None, (accuracy, baseline_text(found))))
