"""Report input -> what the model looks at: typical images of each class, explained; faithfulness."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from vitreous.tensor_file import parsing
from vitreous.use.explain.check.faithfulness import FILE
from vitreous.use.html import markup
from vitreous.use.report.section import Advice, ReportInput, Section

_MOST_CLASSES = 8


def looks_section(report: ReportInput) -> Section:
    """Show typical images of each class with their explanations, and how faithful methods are."""
    folder, numbers, parts = report.folder, dict[str, Any](), list(_typical(report))
    path = folder.path / FILE
    if path.is_file():
        with parsing(path, "delete it, or check explanations again"):
            content = json.loads(path.read_text("utf-8"))
            numbers[path.stem] = [str(sentence) for sentence in content["sentences"]]
            table = _faithful(content.get("methods", {}))
            parts.append(f"<h3>Which explanations are faithful?</h3>{markup.sentences(numbers[path.stem])}{table}")
    if folder.anatomy.is_file():
        link = folder.anatomy.relative_to(folder.path).as_posix()
        parts.append(f'<p><a href="{link}">What the model has learned</a>: its filters, attention and features.</p>')
    todo = (
        (" --check", "faithfulness" in numbers, "Find out which explanations of this model are faithful."),
        (" --model", folder.anatomy.is_file(), "See what the model has learned: its filters, attention and features."),
    )
    advice = [Advice(text, f"vitreous explain {report.run}{option}", 0.003 / (1 + len(option)))
              for option, is_done, text in todo if not is_done and report.held_out is not None]  # fmt: skip
    shown = tuple(parts) or ("<p>This has not been examined yet.</p>",)
    return Section("looks", "What does the model look at?", shown, numbers, tuple(advice))


def _typical(report: ReportInput) -> Iterator[str]:
    """Yield the most typical correct image of each class, that with the most central logits, with its explanation."""
    outputs = report.held_out
    if outputs is None or outputs.indices is None or outputs.thresholds is not None or report.pictures is None:
        return
    correct, logits, items = outputs.predicted == outputs.numbers, outputs.logits.numpy(), list[str]()
    counts = np.bincount(outputs.numbers[correct])
    for number in np.argsort(-counts, kind="stable")[: min(_MOST_CLASSES, np.count_nonzero(counts))]:
        members = np.flatnonzero(correct & (outputs.numbers == number))
        distances = np.linalg.norm(logits[members] - logits[members].mean(axis=0), axis=1)
        name = outputs.classes[number]
        uris = report.pictures.uris(int(outputs.indices[members[distances.argmin()]]), explained=True)
        if len(uris) == 2:
            texts = (f"typical image of {name}", "what raises its score")
            items.append(markup.photo(zip(uris, texts, strict=True), f"<b>{markup.class_name(name)}</b>"))
    if items:
        yield "<p>A typical correct image of each class; red raises the score of the class, blue lowers it.</p>"
        yield markup.gallery(items)


def _faithful(methods: dict[str, Any]) -> str:
    """Return the scores of methods as a table; nothing if there are none."""
    scores = [(escape(str(found["label"])), found["measured"]["removal"]["score"]) for found in methods.values()]
    rows = [(label, f"{s['mean']:.2f}", f"{s['low']:.2f} to {s['high']:.2f}") for label, s in scores]
    header = ("method", "area between the curves of token removal", "95% interval")
    return markup.table(header, rows, numbers_from=1) if rows else ""
