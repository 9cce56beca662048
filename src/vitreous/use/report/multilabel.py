"""LabelEvaluation -> the parts of a report on images with several labels: headline and scores per label."""

from html import escape

from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.report import markup


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
