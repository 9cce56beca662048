"""Run -> the section of the report in which the trained model classifies a photo of the reader, in the page itself."""

from html import escape
from typing import Any

from vitreous.errors import ConfigError, VitreousError
from vitreous.use.export.agreement import agreement_of_run
from vitreous.use.export.page.document import app_html, script_text, style_text
from vitreous.use.export.page.pack import TOLERANCE, PackedModel, pack
from vitreous.use.html import markup
from vitreous.use.predict.predictor import Predictor
from vitreous.use.report.section import ReportInput, Section

_NAME, _TITLE = "try_it", "Try the model"


def try_it_section(report: ReportInput) -> Section:
    """Return the section; if the model cannot run in a page, it says why and what can be done instead."""
    predictor, folder = Predictor.load(report.folder.model), report.folder
    has_example = report.pictures is not None and folder.example.suffix == ".png" and folder.example.is_file()
    try:
        packed = pack(predictor, example=folder.example.read_bytes() if has_example else None)
    except ConfigError as error:
        parts = (
            f"<p>The model does not run in this page: {escape(str(error))}.</p>",
            *(markup.command(f"vitreous {verb} {report.run} IMAGE") for verb in ("predict", "explain")),
        )
        return Section(_NAME, _TITLE, parts, {"runs_in_page": False, "reason": str(error)})
    sentence, numbers = _agreement(report, predictor, packed)
    return Section(
        name=_NAME,
        title=_TITLE,
        parts=(
            "<p>The trained model is in this page and runs in your browser. Photos stay on your device, and no "
            "network is needed.</p>",
            app_html(packed.text),
            markup.sentences([sentence, _TOLERANCE_SENTENCE]),
        ),
        numbers={"runs_in_page": True, "size_bytes": len(packed.text), **numbers},
        style=style_text(),
        script=script_text(),
    )


_TOLERANCE_SENTENCE = (
    "JavaScript and Python give the same result for the same pixels and weights: in our tests, logits differ by less "
    f"than {TOLERANCE:g}; browsers and Python decode JPEG files slightly differently"
)


def _agreement(report: ReportInput, predictor: Predictor, packed: PackedModel) -> tuple[str, dict[str, Any]]:
    """Return what rounding the weights changes on held-out images, in words and numbers."""
    rounded = "To keep the page small, its weights are rounded to 8 bits"
    if report.held_out is None or not len(report.held_out):
        return f"{rounded}; what that changes is not known, because the run has not stored what it held out", {}
    source = None if report.pictures is None else report.pictures.source
    try:
        found = agreement_of_run(
            report.folder, predictor, packed.rounded, report.held_out, source=source, limit_s=report.limit_s
        )
    except VitreousError as error:
        return f"{rounded}; what that changes could not be measured ({error})", {}
    return f"{rounded}; the rounded model {found.sentence}", {"agreement": vars(found)}
