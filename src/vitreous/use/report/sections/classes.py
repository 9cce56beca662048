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
    heading, *rows = found.class_rows if isinstance(found, Evaluation) else found.table()
    parts = [markup.table(heading, [(markup.class_name(n), *map(escape, row)) for n, *row in rows], numbers_from=1)]
    if isinstance(found, Evaluation) and found.has_matrix:
        matrix = draw_confusion(found.confusion, [row.name for row in found.classes])
        parts.append(f"<h3>Confusion matrix</h3><figure>{matrix}</figure>")
    title = "Scores per class" if isinstance(found, Evaluation) else "Scores per label"
    return Section("classes", title, tuple(parts), {"classes": found.as_dict()["classes"]})
