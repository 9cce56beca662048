"""A finished run -> sections of its report: HTML, the same numbers for `report.json`, and advice."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from math import inf
from pathlib import Path
from shlex import quote
from typing import Any

from vitreous.data.sources import PYTHON_PREFIX
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.evaluate.outputs import Outputs, reported
from vitreous.use.html import markup
from vitreous.use.predict.table import read_held_out
from vitreous.use.report.photos import Pictures, relative_names


@dataclass(frozen=True)
class Advice:
    """Something useful to do next.

    Attributes:
        text: One sentence: what was found and what to do. Plain text.
        command: The command that does it, which can be copied; empty if it is not a command.
        gain: How much it may help, as a share of the images; decides the order. A guess is called one in `text`.
    """

    text: str
    command: str
    gain: float


def advice_list(advice: Iterable[Advice]) -> str:
    """Return advice as HTML, each with its command; an empty string if there is none."""
    items = "".join(f"<li>{escape(a.text)}<br>{markup.command(a.command) if a.command else ''}</li>" for a in advice)
    return f"<ul>{items}</ul>" if items else ""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        name: Key in `report.json`, and the anchor in the page.
        title: Heading; plain text.
        parts: HTML, in which texts are escaped.
        numbers: The same results as plain values.
        advice: What to do next, judged by this section; it is shown at its end.
        style: CSS rules that it needs.
        script: JavaScript that it needs, without user content; the page allows it by its hash.
    """

    name: str
    title: str
    parts: tuple[str, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    advice: tuple[Advice, ...] = ()
    style: str = ""
    script: str = ""


@dataclass(frozen=True, eq=False)
class ReportInput:
    """A finished run, as the sections of its report read it.

    Attributes:
        folder: The run folder.
        config: Its configuration.
        metadata: Metadata of its model.
        records: Its events.
        evaluation: Scores on the held-out images; None if there are none.
        outputs: Outputs on the held-out images by split, `val` and `test`; empty for a run of an older version.
        pictures: Makes thumbnails, and pictures that explain predictions; None if there are no photos to show.
        no_photos: The reason for that; empty if there are photos.
        limit_s: Seconds that a section may spend on a measurement that is stored and can be completed later.
    """

    folder: RunFolder
    config: RunConfig
    metadata: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    evaluation: Evaluation | LabelEvaluation | None
    outputs: Mapping[str, Outputs]
    pictures: Pictures | None = None
    no_photos: str = ""
    limit_s: float = inf

    @property
    def run(self) -> str:
        """The run as a word of a command."""
        return quote(str(self.folder.path))

    @property
    def data(self) -> str:
        """The data as a word of a command, with the shorter of both paths; empty if one word cannot name it."""
        source = self.config.data.source
        if self.config.data.root is not None or source.startswith(PYTHON_PREFIX):
            return ""
        if not Path(source).exists():
            return quote(source)
        return quote(min(os.path.relpath(source), str(Path(source).absolute()), key=len))

    def last(self, kind: str) -> Mapping[str, Any]:
        """Return the last record of a kind; empty if there is none."""
        return next((record for record in reversed(self.records) if record["kind"] == kind), {})

    @cached_property
    def names(self) -> list[str]:
        """Names of the images of `held_out`, relative to the data folder."""
        return relative_names((row.path for row in read_held_out(self.folder.predictions)), self.config.data)

    @cached_property
    def held_out(self) -> Outputs | None:
        """The outputs on which the accuracy is reported; None if they are not stored."""
        return reported(self.outputs)


SectionOf = Callable[[ReportInput], Section | None]
"""Makes a section; None if there is nothing to show."""
