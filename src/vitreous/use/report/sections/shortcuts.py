"""Stored check for shortcuts -> a section: what was found, and a picture of where relevance lies in each class."""

import base64
import json
from html import escape
from typing import Any

from vitreous.tensor_file import parsing
from vitreous.use.html import markup
from vitreous.use.report.section import Advice, ReportInput, Section

TITLE = "Does the model look at the object?"
_MOST_BYTES = 1 << 20
"""A larger picture is not embedded, so that the page stays small."""


def shortcuts_section(report: ReportInput) -> Section:
    """Show the last check for shortcuts; if there was none, advise it. The picture needs photos to be allowed."""
    folder = report.folder
    if not folder.shortcuts.is_file():
        text = "Marks or backgrounds may give classes away; check where the relevance of each class lies."
        advice = Advice(text, f"vitreous explain {report.run}", 0.01)
        return Section("shortcuts", TITLE, ("<p>This has not been checked.</p>",), advice=(advice,))
    with parsing(folder.shortcuts, "remove the file, or check for shortcuts again"):
        numbers: dict[str, Any] = json.loads(folder.shortcuts.read_text("utf-8"))
        numbers["sentences"] = [str(sentence) for sentence in numbers["sentences"]]
    picture = folder.shortcuts_picture
    parts = [markup.sentences(numbers["sentences"])]
    if report.pictures is not None and picture.is_file() and picture.stat().st_size <= _MOST_BYTES:
        content = base64.b64encode(picture.read_bytes()).decode()
        shown = "Mean relevance of each class, then photos and their relevance. Places of shortcuts are outlined."
        parts.append(
            f'<figure><img src="data:image/jpeg;base64,{content}" alt="{escape(shown)}">'
            f"<figcaption>{escape(shown)}</figcaption></figure>"
        )
    return Section("shortcuts", TITLE, tuple(parts), numbers)
