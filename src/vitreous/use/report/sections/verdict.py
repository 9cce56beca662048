"""Report input, other sections -> the first screen: how good, how certain, what is confused, what to do next."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vitreous.training.weights.transfer import FEW_TESTED
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.headline import accuracy_text, baseline_text, never_predicted_text
from vitreous.use.html import markup
from vitreous.use.report.section import Advice, ReportInput, Section, advice_list
from vitreous.use.series.page import sentences
from vitreous.use.series.summary import summarize_series
from vitreous.wording import plural

_MOST_ADVICE = 3


def verdict_section(report: ReportInput, others: Sequence[Section]) -> Section:
    """Sum up the report; the advice is the most useful of all sections."""
    found, folds = report.evaluation, report.folder.folds
    said, scale = ["The run has no test or validation images, so its accuracy is unknown"], ""
    if isinstance(found, Evaluation):
        scores = found.score.as_dict()
        accuracy, details = accuracy_text(scores).split(" (", 1)
        said = [f"{accuracy} accuracy on {found.data}: {details[:-1]}", baseline_text(scores)]
        said.append(never_predicted_text(scores, most=10_000))
        scale = _scale(scores)
    elif found is not None:
        said = [sentence.removeprefix("mAP ") for sentence in found.sentences()]
        said[0] = said[0].replace(" ", " mAP ", 1)
    said += [str(s.numbers.get("sentence", "")) for s in others if s.name in ("mistakes", "calibration")]
    said = [*filter(None, said), *(sentences(summarize_series(folds)) if folds.series.is_file() else ())]
    first, _, rest = said[0].partition(" ") if found is not None else ("", "", said[0])
    headline = f'<p><span class="headline">{first}</span> {escape(rest)}.</p>'
    advice = [*_advice(report), *(each for section in others for each in section.advice)]
    best = {each.command or each.text: each for each in sorted(advice, key=lambda each: each.gain)}
    advice = sorted(best.values(), key=lambda each: -each.gain)[:_MOST_ADVICE]
    todo = f"<h3>What to do next</h3>{advice_list(advice)}" if advice else ""
    numbers = {"data": found.data, **found.score.as_dict()} if found is not None else {}
    numbers |= {"sentences": said, "advice": [vars(each) for each in advice]}
    return Section("verdict", "In short", (headline, scale, markup.sentences(said[1:]), todo), numbers)


def _scale(found: Mapping[str, Any]) -> str:
    """Draw the accuracy, its interval, and always predicting the largest class on a scale from 0 to 100%."""
    shares = (found["accuracy"], *found["interval_95"], found["majority_share"])
    reached, low, high, always = (f"{500 * share:.1f}" for share in shares)
    return (
        '<svg class="scale" viewBox="0 0 500 38" aria-hidden="true">'
        '<rect class="track" width="500" height="12" rx="3"/>'
        f'<rect class="reached" width="{reached}" height="12" rx="3"/>'
        f'<path d="M{low} 6H{high}M{low} 2V10M{high} 2V10M{always} 12V20"/>'
        f'<text x="{always}" y="34" text-anchor="middle">largest class</text></svg>'
    )


def _advice(report: ReportInput) -> list[Advice]:
    """Advise to test on more images."""
    found, data = report.evaluation, report.last("data")
    if found is None and report.data:
        text = "Nothing is known about new images, because none were held out: hold some out."
        return [Advice(text, f"vitreous train {report.data} --data.test_ratio 0.2", 1.0)]
    is_given = data.get("brings_test") or data.get("brings_val") or report.config.data.num_folds
    has_folds = report.folder.folds.series.is_file()
    if found is None or not report.data or is_given or has_folds or found.score.num_images >= FEW_TESTED:
        return []
    text = f"{plural(found.score.num_images, 'test image')} do not determine the accuracy well; cross-validation tests "
    low, high = found.score.interval
    return [Advice(f"{text}each image once.", f"vitreous train {report.data} --folds 5", (high - low) / 4)]
