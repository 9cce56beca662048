"""LabelEvaluation -> the parts of a report on images with several labels: headline and scores per label."""

from collections.abc import Sequence
from html import escape

import numpy as np

from vitreous.data.label_sets import split_labels
from vitreous.use.evaluate.multilabel import LabelEvaluation, score_each_label
from vitreous.use.predict.table import HeldOutPrediction
from vitreous.use.report import markup


def read_evaluation(
    data: str, rows: Sequence[HeldOutPrediction], loss: float, classes: Sequence[str], thresholds: Sequence[float]
) -> LabelEvaluation:
    """Return the scores of the predictions that a run wrote; the arguments are those of `score_each_label`."""
    true = np.array([[name in split_labels(row.true) for name in classes] for row in rows])
    probabilities = np.array([row.probabilities for row in rows], dtype=np.float32)
    return score_each_label(data, probabilities, true, loss, classes, thresholds)


def headline(evaluation: LabelEvaluation) -> list[str]:
    """Return the first paragraph of the report."""
    first, *others = map(escape, evaluation.sentences())
    _, value, rest = first.split(" ", 2)
    return [f'<p><span class="headline">{value}</span> mAP {rest}; {"; ".join(others)}.</p>']


def label_scores(evaluation: LabelEvaluation) -> list[str]:
    """Return the scores per label."""
    headings, *rows = evaluation.table()
    return [
        "<h2>Scores per label</h2>",
        "<p>A label is predicted if its probability reaches its threshold. Validation images decide the thresholds; "
        "without any, they are 0.5.</p>",
        markup.table(headings, [tuple(map(escape, row)) for row in rows], numbers_from=1),
    ]
