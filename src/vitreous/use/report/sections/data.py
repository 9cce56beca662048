"""Report input -> what the data is: numbers of images, examples of each class, findings, unreadable files."""

from collections.abc import Iterator
from html import escape

import numpy as np

from vitreous.data.label_sets import having
from vitreous.use import markup
from vitreous.use.doctor.pictures import data_uri
from vitreous.use.report.photos import relative_names
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import listed, plural

_MOST_CLASSES, _PER_CLASS, _SIDE_PX, _MOST_BARS, _MOST_SKIPPED = 10, 4, 96, 100, 200


def data_section(report: ReportInput) -> Section | None:
    """Show what the run was trained on; None for a run without that record."""
    data = report.last("data")
    if not data:
        return None
    counts = dict(zip(data["classes"], data["class_counts"], strict=True))
    splits = {"training": data["num_train"], "validation": data["num_val"], "test": data["num_test"]}
    texts = [listed([plural(count, f"{split} image") for split, count in splits.items()]),
             f"{plural(len(counts), 'class', 'classes')}; median size {data['width_px']}x{data['height_px']} px "
             f"(width x height); {plural(data['in_chans'], 'channel')}"]  # fmt: skip
    findings = [str(finding) for finding in data.get("findings", ())]
    names = sorted(counts, key=lambda name: -counts[name])[:_MOST_BARS]
    parts = (
        markup.sentences(texts),
        "<h3>Training images of each class</h3>",
        markup.bars("class", {name: counts[name] for name in names}),
        f"<p>and {plural(len(counts) - len(names), 'smaller class', 'smaller classes')}</p>"
        if len(counts) > len(names)
        else "",
        *_examples(report),
        "<h3>Findings</h3>" + markup.sentences(findings) if findings else "",
        *_skipped(report, data.get("skipped", ())),
    )
    advice = ()
    if report.data and (findings or data.get("skipped")):
        text = "Problems were found in the data; look at them with their pictures."
        advice = (Advice(text, f"vitreous inspect {report.data} --html doctor.html", 0.005),)
    return Section("data", "Data", parts, {**splits, "classes": counts, "findings": findings}, advice)


def _examples(report: ReportInput) -> Iterator[str]:
    """Yield some images of each class, evenly spaced in the order of the source."""
    if report.source is None or report.photos is None:
        return
    for number, name in enumerate(report.source.classes[:_MOST_CLASSES]):
        members = np.flatnonzero(having(report.source.labels, number))
        if not len(members):
            continue
        places = np.unique(np.linspace(0, len(members) - 1, _PER_CLASS).astype(np.int64))
        pictures = report.photos(members[places].tolist(), _SIDE_PX)
        images = [f'<li><img src="{data_uri(p)}" alt=""></li>' for p in pictures if p is not None]
        if images:
            yield f'<h3>{markup.class_name(name)}</h3><ul class="photos small">{"".join(images)}</ul>'


def _skipped(report: ReportInput, skipped: list[list[str]]) -> Iterator[str]:
    if skipped:
        names = relative_names((where for where, _ in skipped[:_MOST_SKIPPED]), report.config.data)
        rows = [(escape(name), escape(reason)) for name, (_, reason) in zip(names, skipped, strict=False)]
        yield f"<h3>{plural(len(skipped), 'unreadable file')} skipped</h3>"
        yield markup.table(("file", "reason"), rows)
