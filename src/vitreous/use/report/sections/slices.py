"""Groups of held-out images -> the section on those that the model classifies worse, with examples."""

import json
from html import escape

from vitreous.tensor_file import parsing
from vitreous.use.doctor.pictures import data_uri
from vitreous.use.evaluate.images.slices import Slice, worse
from vitreous.use.html.markup import gallery, photo
from vitreous.use.report.section import Advice, ReportInput, Section


def slices_section(report: ReportInput) -> Section | None:
    """Show the groups in `slices.json`, or advise to look for them; None without stored predictions to do so."""
    file, held_out, advice = report.folder.slices, report.held_out, list[Advice]()
    if held_out is None or held_out.thresholds is not None:
        return None
    found, parts = list[Slice](), list[str]()
    if file.is_file():
        with parsing(file, "delete it, or look for groups again"):
            found = [Slice(**entry) for entry in json.loads(file.read_text("utf-8"))]
        parts = [] if worse(found) else ["<p>No group of images is significantly worse than the others.</p>"]
    else:
        text = "Find out if some images are classified worse than others, such as dark ones or those of one camera."
        advice.append(Advice(text, f"vitreous evaluate {report.run} --slices", 0.0))
    for group in worse(found):
        pictures = report.pictures.photos(group.examples, 96) if report.pictures is not None else []
        items = [photo([(data_uri(each), "misclassified")]) for each in pictures if each is not None]
        parts.append(f"<p>{escape(str(group))}</p>{gallery(items, 'small') if items else ''}")
        gain = group.num_images * (group.rest_accuracy - group.accuracy) / len(held_out)
        advice.append(Advice(f"Add training images like these: {group}.", "", gain))
    groups, title = [group._asdict() for group in found], "Images that are classified worse"
    return Section("slices", title, tuple(parts), {"groups": groups}, tuple(advice))
