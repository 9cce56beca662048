"""Scores on the held-out images -> the section on classes: scores with intervals, confusion matrix, mistakes."""

from collections.abc import Iterator

import numpy as np

from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.metrics.scores import Numbers
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.html import markup
from vitreous.use.report.figures import draw_confusion, draw_operating_curves
from vitreous.use.report.section import ReportInput, Section

_MOST_ROWS, _MOST_PAIRS, _MOST_CURVES, _MOST_ORDERED = 50, 10, 6, 200
"""Classes, pairs of them and curves that are shown; above the last number, the order of classes is approximate."""


def classes_section(report: ReportInput) -> Section | None:
    """Show which classes are recognized how well, and which are confused."""
    found = report.evaluation
    if found is None:
        return None
    keys = ["macro_f1", "micro_f1", "kappa", "mcc", "classes", "confused_most", "curves"]
    keys += ["confusion"] if len(found.classes) <= _MOST_ORDERED else []
    numbers = {key: value for key, value in found.as_dict().items() if key in keys}
    if isinstance(found, LabelEvaluation):
        headings, *rows = found.table()
        parts = [markup.table(headings, [(markup.class_name(name), *row) for name, *row in rows], numbers_from=1)]
        each = [row.curves for row in sorted(found.classes, key=lambda row: -row.num_images)[:_MOST_CURVES]]
    else:
        parts, each = [*_scores(found)], [found.curves]
    for number, curves in enumerate(filter(None, each)):
        figure = draw_operating_curves(curves, number)
        parts.append(f"<h3>Curves of {markup.class_name(curves['class'])}</h3><figure>{figure}</figure>")
    kind = "label" if isinstance(found, LabelEvaluation) else "class"
    return Section("classes", f"Scores per {kind}", tuple(parts), numbers)


def class_order(confusion: Numbers) -> Numbers:
    """Return an order of the classes in which those that are confused with each other are neighbors, `[classes]`.

    They are clustered by the mean of both rates at which one is predicted as the other, and the clusters ordered by
    Bar-Joseph et al. 2001, "Fast optimal leaf ordering for hierarchical clustering". Without mistakes, order is kept.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    rates = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    alike = squareform((rates + rates.T) / 2, checks=False)
    if not alike.any():
        return np.arange(len(confusion))
    return leaves_list(linkage(1 - alike, "average", optimal_ordering=len(confusion) <= _MOST_ORDERED))


def _scores(found: Evaluation) -> Iterator[str]:
    """Yield the table of scores, of many classes those with the lowest F1; mistakes, and the confusion matrix."""
    headings, *texts = found.class_rows
    rows, cells = list(zip(found.classes, texts, strict=True)), []
    if len(rows) > _MOST_ROWS:
        yield f"<p>The {_MOST_ROWS} of {len(rows):,} classes with the lowest F1:</p>"
        rows = sorted(rows, key=lambda row: (np.isnan(row[0].f1), row[0].f1))[:_MOST_ROWS]
    for row, (name, *values) in rows:
        low, high = row.recall_interval_95 or (0.0, 0.0)
        drawn = f'<path d="M0 6H100" opacity=".3"/><path d="M{100 * low:.1f} 6H{100 * high:.1f}" stroke-width="6"/>'
        bar = f'<svg width="100" height="12" stroke="currentColor" aria-hidden="true">{drawn}</svg>'
        cells.append((markup.class_name(name), *values, bar))
    yield markup.table((*headings, "recall, 0 to 1"), cells, numbers_from=1)
    yield "<h3>Most frequent mistakes</h3>"
    pairs = [(markup.class_name(true), markup.class_name(predicted), f"{num:,}")
             for true, predicted, num, _ in found.confused_most(_MOST_PAIRS)]  # fmt: skip
    yield markup.table(("true class", "predicted as", "images"), pairs, numbers_from=2) if pairs else "<p>None.</p>"
    if found.has_matrix:
        order = class_order(found.confusion)
        yield "<h3>Confusion matrix</h3><p>Images, and their share of the true class, which is the row. Classes that "
        yield "are often confused are neighbors.</p>"
        figure = draw_confusion(found.confusion[np.ix_(order, order)], [found.names[number] for number in order])
        yield f"<figure>{figure}</figure>"
