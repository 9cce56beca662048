"""Records, confusion matrix -> figures as SVG text."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitreous.wording import shortened

if TYPE_CHECKING:  # takes half a second to import, so it is imported when the first figure is drawn
    from matplotlib.figure import Figure

_INK, _TRAINED, _AVERAGE, _FAINT = "#222222", "#1f77b4", "#d95f02", "#b0b0b0"
_MOST_LABELS = 30
"""Number of classes above which a confusion matrix shows no names, because they would overlap."""
_LONGEST_LABEL = 24


def draw_curves(records: Sequence[Mapping[str, Any]]) -> str:
    """Plot loss and accuracy against epochs, for training and for validation of the weights and of their average."""
    steps = _last_of_each_step([record for record in records if record["kind"] == "step"])
    figure = _figure(9.5, 3.4)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        points = [(record["epoch"], record[quantity]) for record in steps if not isinstance(record[quantity], str)]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), color=_FAINT, label="training (augmented)")
        for weights, color in (("trained", _TRAINED), ("average", _AVERAGE)):
            found = [r for r in records if r["kind"] == "evaluation" and r["weights"] == weights]
            points = [(r["epoch"], r[quantity]) for r in _last_of_each_step(found) if not isinstance(r[quantity], str)]
            if points:
                label = "validation" if weights == "trained" else "validation, averaged weights"
                axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=3, label=label)
            if points and quantity == "accuracy" and "majority_share" in found[-1]:
                axes.axhline(found[-1]["majority_share"], color=_FAINT, linestyle=":", label="always the largest class")
        axes.set_xlim(left=0)
        axes.set_xlabel("epoch")
        axes.set_title(quantity)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[1].set_ylim(0, 1.02)
    figure.axes[1].legend(frameon=False, loc="lower right")
    return _svg(figure)


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Draw a confusion matrix (rows: true class, columns: predicted class), shaded by the share of each row."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(9.0, 2.2 + 0.42 * len(classes))
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= _MOST_LABELS:
        names = [shortened(name, _LONGEST_LABEL) for name in classes]
        # Class names may contain a $, which must not start a formula.
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        for row, column in np.argwhere(confusion):
            color = "white" if shares[row, column] > 0.5 else _INK
            text = f"{confusion[row, column]}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    axes.set_xlabel("predicted class", labelpad=8)
    axes.set_ylabel("true class", labelpad=8)
    return _svg(figure)


def draw_operating_curves(curves: Mapping[str, Any]) -> str:
    """Draw the ROC and the precision-recall curve of a class; the argument is what `operating_curves` returns."""
    roc, recall = f"ROC, area {curves['roc_auc']:.3f}", f"average precision {curves['average_precision']:.3f}"
    axes_of = (("roc", roc, "false positive rate", "recall"), ("precision_recall", recall, "recall", "precision"))
    figure = _figure(7.6, 3.4)
    for axes, (kind, title, across, up) in zip(figure.subplots(1, 2), axes_of, strict=True):
        axes.plot(*zip(*(point[:2] for point in curves[kind]), strict=True), color=_TRAINED, drawstyle="steps-post")
        axes.set(title=title, xlabel=across, ylabel=up, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _last_of_each_step(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep the last record of each step; a resumed run records some steps twice."""
    by_step = {record["step"]: record for record in records}
    return [by_step[step] for step in sorted(by_step)]


def _figure(width: float, height: float) -> "Figure":
    """Create an empty figure; sizes are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: "Figure") -> str:
    import matplotlib as mpl

    text = io.StringIO()
    # Text stays text, so the browser chooses a font for class names. A fixed salt makes the output reproducible.
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vitreous", "font.family": "sans-serif"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "ignore", r"Glyph .* missing", UserWarning
        )  # only affects the layout; the browser has the glyph
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return text.getvalue()[text.getvalue().index("<svg") :]
