"""Run, `export.json` -> the section of the report on exported files: whether they give the answers of Python."""

from html import escape

from vitreous.tensor_file import parsing
from vitreous.use.export.exporter import read_exports
from vitreous.use.export.words import proof_rows, proof_sentence
from vitreous.use.html import markup
from vitreous.use.report.section import ReportInput, Section

_NOTE = (
    "<p>Each file was compared with Python on photos that the model was not trained on. Those of ONNX and torch were "
    "opened by their own runtime; of a page, its model was compared. "
    "Times include resizing; they are those of the machine that exported the file.</p>"
)


def exported_section(report: ReportInput) -> Section | None:
    """Show what was measured of each exported file; None if there is none."""
    found, parts = read_exports(report.folder), [_NOTE]
    with parsing(report.folder.exports, "delete it, and export again"):
        for name, measured in found.items():
            heading, *rows = ([escape(cell) for cell in row] for row in proof_rows(measured))
            parts += [f"<h3>{escape(name)}</h3>", markup.sentences([f"The file {proof_sentence(measured)}"]),
                      markup.table(heading, rows, numbers_from=1)]  # fmt: skip
    return Section("exported", "Exported files", tuple(parts), found) if found else None
