"""Report input -> scores per class, and the confusion matrix."""

from html import escape

from vitreous.use import markup
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.report.figures import draw_confusion
from vitreous.use.report.section import ReportInput, Section


def classes_section(report: ReportInput) -> Section | None:
    """Show precision and recall of each class, or the scores of each label."""
    found = report.evaluation
    if found is None:
        return None
    parts, title = list[str](), "Scores per class"
    if isinstance(found, Evaluation):
        heading, *rows = found.class_rows
        parts.append(markup.table(heading, [(markup.class_name(n), *values) for n, *values in rows], numbers_from=1))
        if found.has_matrix:
            matrix = draw_confusion(found.confusion, [row.name for row in found.classes])
            parts.append(f"<h3>Confusion matrix</h3><figure>{matrix}</figure>")
    else:
        title, (heading, *rows) = "Scores per label", found.table()
        parts.append("<p>A label is predicted if its probability reaches its threshold. Validation images decide the "
                     "thresholds; without any, they are 0.5.</p>")  # fmt: skip
        parts.append(markup.table(heading, [tuple(map(escape, row)) for row in rows], numbers_from=1))
    return Section("classes", title, tuple(parts), {"classes": found.as_dict()["classes"]})
