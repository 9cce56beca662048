"""Run -> section of the report on images unlike the training images: which are flagged, and by which score."""

from collections.abc import Sequence
from html import escape

from vitreous.recipe.pace import LEAST_FAMILIAR
from vitreous.training.fit.familiarity import FLAGGED, SCORES
from vitreous.use.doctor.pictures import data_uri
from vitreous.use.html.markup import gallery, photo, table
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import plural

_TITLE = "Images unlike the training images"
_EXPECTED = 1 - FLAGGED


def unfamiliar_section(report: ReportInput) -> Section | None:
    """Return the section; None for a run of an older version, or if its budget left no time for this."""
    found = report.last("familiarity")
    if not found:
        num_val = report.metadata["metrics"].get("val", {}).get("num_images", 0)
        text = f"<p>They are not recognized: that takes {LEAST_FAMILIAR} validation images; there are {num_val}.</p>"
        return None if num_val >= LEAST_FAMILIAR else Section("unfamiliar", _TITLE, (text,))
    num, num_flagged, is_test = int(found["num_images"]), int(found["num_flagged"]), found["split"] == "test"
    share = num_flagged / num if is_test else 0.0
    counted = f" Of {plural(num, 'test image')}, {num_flagged:,} ({share:.1%}) are." if is_test else ""
    names = [f"{name} (used)" if score == found["score"] else name for score, name in SCORES.items()]
    kinds = [str(kind) for kind in found["auroc"][found["score"]]]
    rows = [(escape(kind), *(f"{found['auroc'][score][kind]:.2f}" for score in SCORES)) for kind in kinds]
    parts = (
        f"<p><code>vitreous predict</code> marks an image that is less like the training images than {FLAGGED:.0%} of "
        f"the validation images are, so about {_EXPECTED:.0%} of familiar images are marked too.{counted}</p>",
        f"<p>Such images are recognized by {SCORES[found['score']]}, the score whose worst result in this table is the "
        "best. The table shows the AUROC: the probability that an outlier has a higher score than a validation image; "
        "0.5 is chance. It is a probe with simple outliers, not a guarantee: others may be harder to recognize.</p>",
        table(("outliers", *names), rows, numbers_from=1),
        *_photos(report, found["least_familiar"]),
    )
    numbers = {key: found[key] for key in ("score", "auroc", "split", "num_images", "num_flagged", "least_familiar")}
    advice = f"{share:.0%} of the test images are unlike the training images, not {_EXPECTED:.0%} as expected: look at "
    advice += "them in the report, and train on more images like them."
    todo = (Advice(advice, command="", gain=share - _EXPECTED),) if share > 2 * _EXPECTED else ()
    return Section("unfamiliar", _TITLE, parts, numbers, todo)


def _photos(report: ReportInput, least_familiar: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """Return the held-out images that are least like the training images, if the report may show photos."""
    outputs = report.held_out
    if report.pictures is None or outputs is None or outputs.indices is None:
        return ()
    shown = {int(index): share for index, share in least_familiar if int(index) in outputs.indices}
    items = [
        photo([(data_uri(picture), "a held-out image")], f"less familiar than {share:.1%}")
        for picture, share in zip(report.pictures.photos(list(shown), 112), shown.values(), strict=True)
        if picture is not None
    ]
    return ("<h3>The held-out images that are least like the training images</h3>", gallery(items)) if items else ()
