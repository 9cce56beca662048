"""Held-out images of a run -> the sections on sets of classes, and on rejecting the least certain predictions."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vitreous.use.evaluate.sets.measured import measure_rejecting, measure_sets, rejecting_text, sets_text, usual
from vitreous.use.html import markup
from vitreous.use.report.section import Advice, ReportInput, Section

_KINDS = (
    "lac gives the smallest sets on average, aps and raps give larger ones to difficult images, and with per-class "
    "each class has the coverage; `--sets` chooses"
)


def sets_section(report: ReportInput) -> Section | None:
    """Show how large sets of classes are, and how often they contain the true one; None without enough images."""
    found = measure_sets(report.outputs)
    if report.held_out is None or not usual(found):
        return None
    (main,) = usual(found)
    by_class = zip(report.held_out.classes, main["by_class"], strict=True)
    lowest, name = min((covered / count, name) for name, (covered, count) in by_class if count)
    texts = [sets_text(main), f"lowest coverage of a class: {lowest:.1%}, {name}", *_caveats(report), _KINDS]
    headings = ("sets", "wanted", "coverage", "expected", "classes on average", "1 class", "2", "3", "more")
    command = f"vitreous predict {report.run} IMAGES --coverage {main['level']:g}"
    parts = (markup.sentences(texts), markup.table(headings, map(_row, found)), markup.command(command))
    return Section("sets", "Sets of classes", parts, {"scores": found})


def rejecting_section(report: ReportInput) -> Section | None:
    """Show how the accuracy rises if the least certain predictions are left to a person; None without outputs."""
    found = measure_rejecting(report.outputs)
    if found is None:
        return None
    headings = ("guaranteed accuracy", "probability above", "predictions kept", "accuracy on test images", "command")
    rows: list[tuple[str, ...]] = []
    advice: list[Advice] = []
    for target, kept in found["kept"].items():
        command = f"vitreous predict {report.run} IMAGES --reject {target:g}"
        accuracy = "–" if kept["accuracy"] is None else f"{kept['accuracy']:.1%}"
        cells = (f"{target:.0%}", f"{kept['probability_above']:.1%}", _bar(kept["share"]), accuracy)
        rows.append((*cells, f"<code>{escape(command)}</code>"))
        text = f"Leave the least certain {1 - kept['share']:.0%} of the images to a person: then {target:.0%} of the "
        avoided = 1 - found["accuracy"] - kept["share"] * (1 - target)
        gain = kept["share"] * avoided  # the more images a person has to look at, the less it helps
        advice.append(Advice(f"{text}others or more are correct.", command, gain))
    texts = [rejecting_text(found), *_caveats(report)]
    parts = (markup.sentences(texts), _curve(found["curve"]), markup.table(headings, rows) if rows else "")
    best = tuple(one for one in advice[-1:] if one.gain > 0)
    return Section("rejecting", "Leaving uncertain images to a person", parts, found, best)


def _caveats(report: ReportInput) -> list[str]:
    text = "the validation images that choose limits have chosen the weights too, so guarantees are slightly optimistic"
    return [text] if any(outputs.chose_weights for outputs in report.outputs.values()) else []


def _row(of: Mapping[str, Any]) -> tuple[str, ...]:
    counts = [count for _, count in of["by_size"]]
    bars = (_bar(sum(counts[first:last]) / sum(counts)) for first, last in ((0, 1), (1, 2), (2, 3), (3, None)))
    low, high = of["expected"]
    texts = (f"{of['level']:.0%}", f"{of['coverage']:.1%}", f"{low:.1%} to {high:.1%}", f"{of['mean_size']:.2f}")
    return of["kind"], *texts, *bars


def _bar(share: float) -> str:
    return f'<meter value="{share:.3f}" aria-hidden="true"></meter> {share:.1%}'


def _curve(curve: Sequence[Sequence[float]]) -> str:
    """Draw a risk-coverage curve."""
    top = max(0.01, *(risk for _, risk in curve))
    points = " ".join(f"{50 + 400 * share:.1f},{190 - 160 * risk / top:.1f}" for share, risk in curve)
    texts = {"50 205": "0%", "420 205": "100%", "20 190": "0%", "5 34": f"{top:.1%}", "50 16": "mistakes among them",
             "150 222": "predictions kept, most certain first"}  # fmt: skip
    labels = "".join('<text x="{}" y="{}">{}</text>'.format(*place.split(), text) for place, text in texts.items())
    return (
        '<svg viewBox="0 0 480 230" width="480" role="img" font-size="12" fill="currentColor"><title>Risk-coverage '
        f"curve</title><desc>Mistakes among the most certain predictions.</desc>{labels}<g fill='none' stroke="
        f"'currentColor'><path d='M50 26V190H450'/><polyline points='{points}' stroke-width='2'/></g></svg>"
    )
