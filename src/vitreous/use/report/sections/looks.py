"""Report input -> what the model looks at: typical images of each class, explained; shortcuts; faithfulness."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from vitreous.tensor_file import parsing
from vitreous.use import markup
from vitreous.use.doctor.pictures import data_uri
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.explain.check.faithfulness import FILE
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import shortened

_MOST_CLASSES, _SIDE_PX = 8, 160


def looks_section(report: ReportInput) -> Section:
    """Show what is known about the parts of images that decide."""
    folder, parts, advice = report.folder, list[str](), list[Advice]()
    numbers: dict[str, Any] = {}
    if folder.shortcuts.is_file():
        with parsing(folder.shortcuts, "remove the file, or check for shortcuts again"):
            found = [str(sentence) for sentence in json.loads(folder.shortcuts.read_text("utf-8"))["sentences"]]
        parts.append(markup.sentences(found))
        numbers["shortcuts"] = found
    elif report.held_out is not None:
        text = "Check whether the model uses a mark or the background instead of the object."
        advice.append(Advice(text, f"vitreous explain {report.run}", 0.002))
    parts += _typical(report)
    checked = folder.path / FILE
    if checked.is_file():
        with parsing(checked, f"delete it, or repeat `vitreous explain {report.run} --check`"):
            content = json.loads(checked.read_text("utf-8"))
            said, rows = [str(text) for text in content["sentences"]], list(_faithful(content["methods"]))
        parts.append(markup.sentences(said))
        parts.append(markup.table(("method", "area between the curves of token removal", "95% interval"), rows))
        numbers["faithfulness"] = said
    elif report.held_out is not None:
        text = "Find out which explanations of this model are faithful."
        advice.append(Advice(text, f"vitreous explain {report.run} --check", 0.0005))
    if folder.anatomy.is_file():
        link = folder.anatomy.relative_to(folder.path).as_posix()
        parts.append(f'<p><a href="{link}">What the model has learned</a>: its filters, attention, features, and the '
                     "accuracy without each of its parts.</p>")  # fmt: skip
    else:
        text = "See what the model has learned: its filters, attention and features."
        advice.append(Advice(text, f"vitreous explain {report.run} --model", 0.0002))
    return Section("looks", "Does the model look at the object?", tuple(parts), numbers, tuple(advice))


def _typical(report: ReportInput) -> Iterator[str]:
    """Yield the most central correct image of each class with its explanation."""
    outputs = report.held_out
    if outputs is None or outputs.indices is None or report.photos is None or report.overlays is None:
        return
    positions = list(_central(outputs))
    indices = outputs.indices[positions].tolist()
    pairs = zip(report.photos(indices, _SIDE_PX), report.overlays(indices, _SIDE_PX), strict=True)
    items = []
    for position, (photo, overlay) in zip(positions, pairs, strict=True):
        if photo is not None and overlay is not None:
            name = shortened(outputs.classes[outputs.predicted[position]])
            items.append(
                f'<li class="pair"><figure><img src="{data_uri(photo)}" alt="typical image of {escape(name)}"><img '
                f'src="{data_uri(overlay)}" alt="what raises the score of {escape(name)}"><figcaption>'
                f"<b>{markup.class_name(name)}</b></figcaption></figure></li>"
            )
    if items:
        yield "<p>A typical correct image of each class; red patches raise its score, blue ones lower it.</p>"
        yield f'<ul class="photos">{"".join(items)}</ul>'


def _central(outputs: Outputs) -> Iterator[int]:
    """Yield, for the most frequent classes, the correct image whose logits are nearest to their mean."""
    if outputs.thresholds is not None:
        return
    correct, logits = outputs.predicted == outputs.numbers, outputs.logits.numpy()
    counts = np.bincount(outputs.numbers[correct], minlength=len(outputs.classes))
    for number in sorted(np.argsort(-counts, kind="stable")[:_MOST_CLASSES]):
        members = np.flatnonzero(correct & (outputs.numbers == number))
        if len(members):
            distances = np.linalg.norm(logits[members] - logits[members].mean(axis=0), axis=1)
            yield int(members[distances.argmin()])


def _faithful(methods: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for found in methods.values():
        score = found["measured"]["removal"]["score"]
        interval = f"{float(score['low']):.2f} to {float(score['high']):.2f}"
        yield escape(str(found["label"])), f"{float(score['mean']):.2f}", interval
