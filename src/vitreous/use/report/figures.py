"""Records, confusion matrix, reliability curve -> figures as SVG text, and with their numbers as HTML."""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitreous.use.evaluate.calibration import ReliabilityCurve
from vitreous.use.html import markup
from vitreous.wording import printable, shortened

if TYPE_CHECKING:  # takes half a second to import, so it is imported when the first figure is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

# Readable on white and on black. Lines also differ by pattern and marker.
COLORS = ("#2f7bc4", "#d9690f", "#7d8794", "#8d62c4", "#2a9061", "#c2518f")
_PATTERNS, _MARKERS = ("-", "--", "-.", ":"), ("", "o", "s", "^", "D")
_MOST_LABELS = 30
"""Number of classes above which a confusion matrix shows no names, because they would overlap."""
_MOST_ROWS, _MOST_POINTS = 40, 200
_INK = ("#000000", "#222222")
"""Colors that become the color of the page's text."""
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def draw_curves(records: Sequence[Mapping[str, Any]]) -> str:
    """Plot what a run has recorded against epochs: loss, accuracy, learning rate, gradient norm and speed, as HTML."""
    steps, found = last_of_each_step(records, "step"), []
    titles = {"lr": "learning rate", "grad_norm": "gradient norm", "images_per_s": "images/s"}
    for quantity in ("loss", "accuracy", *titles):
        lines = {
            "training (augmented)": _points(steps, quantity),
            "validation": evaluations(records, quantity, "trained"),
            "validation, averaged weights": evaluations(records, quantity, "average"),
        }
        if quantity == "accuracy":
            lines["always the largest class"] = evaluations(records, "majority_share", "trained")
        shown = {label: line for label, line in lines.items() if line}
        found.append(draw_lines(f"training-{quantity}", titles.get(quantity, quantity), shown))
    return f'<div class="figures">{"".join(found)}</div>'


def draw_lines(name: str, title: str, lines: Mapping[str, Points]) -> str:
    """Plot lines against epochs, as HTML.

    The ids in the figure begin with `name`. `accuracy` is shown from 0 to 1. Of each line, at most `_MOST_ROWS` points
    are in the table of numbers.
    """
    figure = new_figure(4.4, 3.1)
    axes = figure.subplots()
    for number, (label, points) in enumerate(lines.items()):
        (line,) = axes.plot(*zip(*points, strict=True) if points else ((), ()), label=_label(label, 40), markersize=3)
        line.set(color=COLORS[number % 6], linestyle=_PATTERNS[number % 4], marker=_MARKERS[number % 5])
    _plain(axes, title, "epoch")
    axes.set_xlim(left=0)
    if title == "accuracy":
        axes.set_ylim(0, 1.02)
    if lines:
        for text in figure.legend(loc="outside lower left", frameon=False, fontsize=8).get_texts():
            text.set_parse_math(False)  # names may contain a $
    rows = [(label, f"{x:.4g}", f"{y:.4g}") for label, points in lines.items() for x, y in _thinned(points, _MOST_ROWS)]
    return with_numbers(as_svg(figure, name, title, f"{title} against epochs"), title, ("line", "epoch", title), rows)


def draw_reliability(curve: ReliabilityCurve) -> str:
    """Draw how often predictions of each confidence are correct, over the numbers of images of each confidence."""
    figure = new_figure(4.8, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    picked = _thinned(range(len(curve.confidence)), _MOST_POINTS)
    x, low, high = curve.confidence[picked], curve.low[picked], curve.high[picked]
    upper.fill_between(x, low, high, color=COLORS[2], alpha=0.3, linewidth=0, label="95% of calibrated models")
    upper.plot((0, 1), (0, 1), color=COLORS[2], linestyle="--", label="correct as often as expected")
    upper.plot(x, curve.accuracy[picked], color=COLORS[0], marker="o", markersize=2, label="this model")
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    _plain(upper, "share that is correct", "")
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    counts, edges = np.histogram(curve.confidence, bins=10, range=(0, 1))
    lower.bar(edges[:-1], counts, width=0.1, align="edge", color=COLORS[0], edgecolor="white", linewidth=0.5)
    _plain(lower, "images", "probability of the predicted class")
    bins = np.minimum((10 * curve.confidence).astype(int), 9)
    rows = [
        (f"{n / 10:.0%} to {n / 10 + 0.1:.0%}", f"{curve.accuracy[bins == n].mean():.1%}", f"{(bins == n).sum():,}")
        for n in np.unique(bins)
    ]
    title = "How often predictions of each probability are correct"
    svg = as_svg(figure, "reliability", title, "The curve of a calibrated model is within the band.")
    return with_numbers(svg, title, ("probability", "correct", "images"), rows)


def with_numbers(svg: str, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a figure with its numbers as a table; title, header and rows are plain text."""
    cells = [tuple(map(escape, row)) for row in rows]
    numbers = markup.table(tuple(map(escape, header)), cells, numbers_from=len(header) - 1)
    return f"<figure>{svg}<details><summary>Numbers: {escape(title)}</summary>{numbers}</details></figure>"


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Draw a confusion matrix (rows: true class, columns: predicted class), shaded by the share of each row, as SVG."""
    from matplotlib.colors import to_rgba_array

    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(9.0, 2.2 + 0.42 * len(classes))
    figure = new_figure(side, side)
    axes = figure.subplots()
    # More opaque cells would hide numbers in the color of the page's text.
    axes.imshow(to_rgba_array([COLORS[0]] * shares.size, 0.8 * shares.ravel()).reshape(*shares.shape, 4))
    if len(classes) <= _MOST_LABELS:
        names = [_label(name) for name in classes]
        # Class names may contain a $, which must not start a formula.
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        for row, column in np.argwhere(confusion):
            text = f"{confusion[row, column]}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7)
    axes.set_xlabel("predicted class", labelpad=8)
    axes.set_ylabel("true class", labelpad=8)
    return as_svg(figure, "confusion", "Confusion matrix", "Rows are true classes, columns are predicted classes.")


def draw_operating_curves(curves: Mapping[str, Any], number: int = 0) -> str:
    """Draw the ROC and the precision-recall curve of `operating_curves`; `number` keeps ids apart in a page."""
    roc, recall = f"ROC, area {curves['roc_auc']:.3f}", f"average precision {curves['average_precision']:.3f}"
    axes_of = (("roc", roc, "false positive rate", "recall"), ("precision_recall", recall, "recall", "precision"))
    figure = new_figure(7.6, 3.4)
    for axes, (kind, title, across, up) in zip(figure.subplots(1, 2), axes_of, strict=True):
        axes.plot(*zip(*(point[:2] for point in curves[kind]), strict=True), drawstyle="steps-post")
        axes.set(ylabel=up, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        _plain(axes, title, across)
    return as_svg(figure, f"curves-{number}", "ROC and precision-recall curve", "One point for each threshold.")


def evaluations(records: Sequence[Mapping[str, Any]], quantity: str, weights: str) -> Points:
    """Return the (epoch, value) pairs of what was evaluated: `trained` weights, or their `average`."""
    return _points(last_of_each_step(records, "evaluation", weights), quantity)


def last_of_each_step(
    records: Sequence[Mapping[str, Any]], kind: str, weights: str | None = None
) -> list[Mapping[str, Any]]:
    """Return the records of a kind, the last one of each step; a resumed run records some steps twice."""
    by_step = {r["step"]: r for r in records if r["kind"] == kind and (weights is None or r["weights"] == weights)}
    return [by_step[step] for step in sorted(by_step)]


def new_figure(width: float, height: float) -> "Figure":
    """Create an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: "Figure", name: str, title: str, description: str) -> str:
    """Return a figure as SVG that can be one of several in a page: in its colors, light or dark, and by its policy.

    All ids begin with `name`, so it must differ from that of other figures of the page. Title and description are for
    screen readers.
    """
    import matplotlib as mpl

    text = io.StringIO()
    # Text stays text, so the browser chooses a font for class names. A fixed salt makes the output reproducible.
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}),
        warnings.catch_warnings(),
    ):
        # Only affects the layout; the browser has the glyph.
        warnings.filterwarnings("ignore", r"Glyph .* missing", UserWarning)
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(_NOT_XML.sub("\ufffd", text.getvalue()[text.getvalue().index("<svg") :]))
    for element in root.iter():
        for child in [child for child in element if child.tag == f"{{{_SVG}}}style"]:
            element.remove(child)  # its rules would be those of the whole page
        declared = [part.partition(":") for part in element.attrib.pop("style", "").split(";")]
        element.attrib.update({key.strip(): value.strip() for key, _, value in declared if value})
        element.attrib.pop("font-family", None)  # that of the page
        for key, value in list(element.attrib.items()):
            element.set(key, _in_page(key, value, name))
    root.attrib.update({"role": "img", "fill": "currentColor", "stroke-linejoin": "round"})
    for position, (tag, content) in enumerate((("title", title), ("desc", description))):
        root.insert(position, ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"}))
        root[position].text = content
    return ET.tostring(root, encoding="unicode")


def _in_page(key: str, value: str, name: str) -> str:
    """Return the value of an attribute with the ids and colors of the page."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href") and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    return "currentColor" if value in _INK else value.replace("url(#", f"url(#{name}-")


def _plain(axes: "Axes", title: str, xlabel: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(xlabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _points(records: Sequence[Mapping[str, Any]], quantity: str) -> Points:
    """Return (epoch, value) pairs; a value that is not finite is text in the records, and leaves a gap."""
    return [(r["epoch"], r[quantity]) for r in records if quantity in r and not isinstance(r[quantity], str)]


def _thinned(values: Sequence[Any], most: int) -> list[Any]:
    """Return at most this number of the values, evenly spaced, with the first and the last one."""
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))] if values else []


def _label(name: str, most: int = 24) -> str:
    """Return a name that a figure can show: short, and on one line."""
    return printable(shortened(name, most))
