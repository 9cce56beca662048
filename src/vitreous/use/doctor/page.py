"""DataReport -> a self-contained page: findings with pictures, a contact sheet per class, histograms."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous import atomic
from vitreous.data.doctor.findings import Finding, Sample
from vitreous.data.label_sets import having
from vitreous.data.survey.facts import Survey
from vitreous.seeding import derive, permutation
from vitreous.use.doctor.examiner import DataReport
from vitreous.use.doctor.pictures import data_uri, thumbnails
from vitreous.use.html import markup
from vitreous.use.predict.table import check_table_path
from vitreous.wording import plural

MOST_GROUPS = 24
"""Groups of images shown for one finding; `--json` lists all."""
MOST_IN_GROUP = 6
MOST_SHEETS = 300
_MOST_PICTURES = 6_000
"""Pictures in all contact sheets together, unless each would have fewer than `_FEWEST_ON_SHEET`."""
_FEWEST_ON_SHEET, _MOST_ON_SHEET = 12, 36
_SHEET_SIDE_PX, _SIDE_PX = 72, 112

_STYLE = """
.photos.group { border-left: 3px solid var(--line); padding-left: .6rem; }
.photos.flow { display: inline-flex; margin: .3rem 1rem .3rem 0; }
.severity { font-size: .75rem; font-weight: 600; border-radius: .3rem; padding: .1rem .45rem; margin-right: .5rem; }
.fault { background: #c62828; color: #fff; } .warning { background: #ffb74d; } .note { background: #e0e0e0; }
.warning, .note { color: #222; }
"""


def check_page_path(path: Path) -> None:
    """Raise ConfigError if the page cannot be written to `path`, before images are decoded for minutes."""
    check_table_path(path, (".html", ".htm"), "doctor.html", "html")


def write_page(path: Path, report: DataReport) -> None:
    """Write the page, complete or not at all; the pictures it shows are decoded again. Raises SaveError."""
    findings = report.examination.findings
    heading, *rows = report.class_rows
    parts = [
        markup.table(("", ""), [(escape(name), escape(value)) for name, value in report.facts]),
        f"<p>{plural(len(findings), 'finding')}, worst first.</p>" if findings else "<p>No problems found.</p>",
        *(part for finding in findings for part in _finding(finding, report.survey)),
        "<h2>Images of each class</h2>",
        markup.table(
            tuple(map(escape, heading)), [(markup.class_name(name), *counts) for name, *counts in rows], numbers_from=1
        ),
        *_sheets(report),
        "<h2>Properties of the images</h2>",
        *(markup.bars(title, counts) for title, counts in report.histograms.items()),
    ]
    atomic.write_text(path, markup.page(f"{report.survey.facts.name}: data report", parts, _STYLE))


def _finding(finding: Finding, surveyed: Survey) -> Iterator[str]:
    yield (
        f'<h2><span class="severity {finding.severity}">{finding.severity}</span>{escape(finding.title)}</h2>'
        f"<p>{escape(finding.detail)} <b>{escape(finding.advice)}</b></p>"
    )
    groups = [group[:MOST_IN_GROUP] for group in finding.samples[:MOST_GROUPS]]
    shown_indices = [sample.index for group in groups for sample in group]
    pictures = iter(thumbnails(surveyed, shown_indices, _SIDE_PX))
    for shown, group in zip(groups, finding.samples, strict=False):
        yield markup.gallery([_item(sample, next(pictures)) for sample in shown], "group" if len(group) > 1 else "flow")
        yield f"<p>and {len(group) - len(shown):,} more</p>" if len(group) > len(shown) else ""
    if len(finding.samples) > len(groups):
        yield f"<p>The first {len(groups)} of {len(finding.samples):,} are shown; <code>--json</code> lists all.</p>"


def _item(sample: Sample, picture: Image.Image | None) -> str:
    split = f" · {escape(sample.split)}" if sample.split else ""
    remark = f"<br><b>{escape(sample.remark)}</b>" if sample.remark else ""
    caption = f"{escape(sample.label)}{split}<br>{escape(Path(sample.where).name)}{remark}"
    return markup.photo([(data_uri(picture), sample.where)] if picture is not None else [], caption)


def _sheets(report: DataReport) -> Iterator[str]:
    """Yield a contact sheet per class: images drawn at random, shown in the order of the source."""
    summaries, source = report.examination.summaries, report.survey.source
    shown = source.classes[:MOST_SHEETS]
    most = int(np.clip(_MOST_PICTURES // len(shown), _FEWEST_ON_SHEET, _MOST_ON_SHEET))
    if len(shown) < len(source.classes):
        yield f"<p>Contact sheets of the first {len(shown)} of {len(source.classes):,} classes.</p>"
    for label, name in enumerate(shown):
        members = summaries.indices[having(source.labels[summaries.indices], label)]
        if not len(members):
            continue
        drawn = np.sort(members[permutation(derive(0, "sheet", label), len(members))[:most]])
        pictures = thumbnails(report.survey, drawn.tolist(), _SHEET_SIDE_PX)
        items = [markup.photo([(data_uri(picture), "")]) for picture in pictures if picture is not None]
        yield f"<h2>{escape(name)}</h2><p>{len(drawn)} of {plural(len(members), 'image')}</p>"
        yield markup.gallery(items, "small")
