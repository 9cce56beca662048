"""Report input -> what the data is: numbers of images, examples of each class, findings, unreadable files."""

from collections.abc import Iterator
from html import escape

import numpy as np

from vitreous.data.label_sets import having
from vitreous.use.doctor.pictures import data_uri
from vitreous.use.html import markup
from vitreous.use.report.photos import relative_names
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import plural

_MOST_CLASSES, _PER_CLASS, _SIDE_PX, _MOST_BARS, _MOST_SKIPPED = 10, 4, 96, 50, 200


def data_section(report: ReportInput) -> Section | None:
    """Show what the run was trained on; None for a run without that record."""
    data = report.last("data")
    if not data:
        return None
    counts = dict(zip(data["classes"], data["class_counts"], strict=True))
    splits = {name: data[f"num_{name}"] for name in ("train", "val", "test")}
    findings, skipped = [str(finding) for finding in data.get("findings", ())], data.get("skipped", ())
    largest = dict(sorted(counts.items(), key=lambda pair: -pair[1])[:_MOST_BARS])
    parts = [
        f"<p>{splits['train']:,} training, {splits['val']:,} validation and {splits['test']:,} test images of "
        f"{plural(len(counts), 'class', 'classes')}; median {data['height_px']} px high, {data['width_px']} px wide; "
        f"{plural(data['in_chans'], 'channel')}.</p><h3>Training images of the largest classes</h3>",
        markup.bars("class", largest),
        *_examples(report),
        f"<h3>Findings</h3>{markup.sentences(findings)}" if findings else "",
    ]
    if skipped:
        files = relative_names((where for where, _ in skipped[:_MOST_SKIPPED]), report.config.data)
        rows = [(escape(name), escape(reason)) for name, (_, reason) in zip(files, skipped, strict=False)]
        parts += [f"<h3>{plural(len(skipped), 'unreadable file')} skipped</h3>", markup.table(("file", "reason"), rows)]
    text, command = "Look at the problems in the data.", f"vitreous inspect {report.data} --html doctor.html"
    advice = (Advice(text, command, 0.005),) if report.data and (findings or skipped) else ()
    return Section("data", "Data", tuple(parts), {**splits, "classes": counts, "findings": findings}, advice)


def _examples(report: ReportInput) -> Iterator[str]:
    """Yield some images of each class, evenly spaced in the order of the source."""
    if report.pictures is None:
        return
    source = report.pictures.source
    for number, name in enumerate(source.classes[:_MOST_CLASSES]):
        members = np.flatnonzero(having(source.labels, number))
        places = np.unique(np.linspace(0, max(0, len(members) - 1), _PER_CLASS).astype(np.int64))[: len(members)]
        pictures = report.pictures.photos(members[places].tolist(), _SIDE_PX)
        items = [markup.photo([(data_uri(picture), "")]) for picture in pictures if picture is not None]
        yield f"<h3>{markup.class_name(name)}</h3>{markup.gallery(items, 'small')}" if items else ""
