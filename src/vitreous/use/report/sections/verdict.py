"""Report input, other sections -> the first screen: how good, how certain, what is confused, what to do next."""

from collections.abc import Sequence
from html import escape

from vitreous.use import markup
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.headline import accuracy_text, baseline_text, never_predicted_text
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.use.series.page import sentences
from vitreous.use.series.summary import summarize_series
from vitreous.wording import plural, shortened

_MOST_ADVICE = 3
_WIDE = 0.03
"""Half of an interval from which more test images are advised."""


def verdict_section(report: ReportInput, others: Sequence[Section]) -> Section:
    """Sum up the report; the advice is the most useful of all sections."""
    found = report.evaluation
    advice = [*_more_images(report), *(each for section in others for each in section.advice)]
    advice = sorted({each.text: each for each in advice}.values(), key=lambda each: -each.gain)[:_MOST_ADVICE]
    folds = report.folder.folds
    certain = sentences(summarize_series(folds)) if folds.series.is_file() else []
    said = [str(s.numbers["sentence"]) for s in others if s.name == "calibration" and "sentence" in s.numbers]
    if found is None:
        parts = ["<p>The run has no test or validation images, so its accuracy is unknown.</p>"]
    elif isinstance(found, Evaluation):
        scores = found.score.as_dict()
        accuracy, details = accuracy_text(scores).split(" (", 1)
        texts = [baseline_text(scores), never_predicted_text(scores, most=10_000), _confused(found), *said, *certain]
        headline = f"accuracy on {escape(found.data)}: {escape(details[:-1])}."
        parts = [
            f'<p><span class="headline">{accuracy}</span> {headline}</p>',
            markup.sentences(filter(None, texts)),
        ]
    else:
        first, *rest = found.sentences()
        _, value, text = first.split(" ", 2)
        headline = f'<p><span class="headline">{value}</span> mAP {escape(text)}.</p>'
        parts = [headline, markup.sentences([*rest, *said, *certain])]
    items = "".join(f"<li>{escape(a.text)}<br>{markup.command(a.command) if a.command else ''}</li>" for a in advice)
    parts.append(f"<h3>What to do next</h3><ol>{items}</ol>" if items else "")
    numbers = {"data": found.data, **found.score.as_dict()} if found is not None else {}
    advised = [vars(each) for each in advice]
    return Section("verdict", "In short", tuple(parts), {**numbers, "confidence": [*said], "advice": advised})


def _confused(found: Evaluation) -> str:
    for true, predicted, count in found.confused_most(1):
        of_class = next(row.num_images for row in found.classes if row.name == true)
        return (
            f"most frequent mistake: {shortened(true)} predicted as {shortened(predicted)}, {count:,} of "
            f"{plural(of_class, 'image')} of {shortened(true)}"
        )
    return "no mistakes"


def _more_images(report: ReportInput) -> list[Advice]:
    """Advise to test on more images if the interval of the accuracy is wide."""
    if report.evaluation is None:
        text = "No images were held out, so nothing is known about new images: hold some out."
        command = f"vitreous train {report.data} --data.test_ratio 0.2" if report.data else ""
        return [Advice(text, command, 1.0)]
    low, high = report.evaluation.score.interval
    data = report.last("data")
    if (
        report.folder.folds.series.is_file()
        or (high - low) / 2 < _WIDE
        or data.get("brings_test")
        or data.get("brings_val")
        or not report.data
    ):
        return []
    num_images = plural(report.evaluation.score.num_images, "image")
    text = f"The accuracy is only known to ±{50 * (high - low):.0f} points, because it was tested on {num_images}; "
    text += "cross-validation tests on every image."
    return [Advice(text, f"vitreous train {report.data} --folds 5", (high - low) / 4)]
