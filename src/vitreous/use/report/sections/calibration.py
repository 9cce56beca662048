"""Report input -> can the probabilities be trusted: reliability curve, numbers of images of each confidence."""

from html import escape

import numpy as np

from vitreous.use.evaluate.calibration import measure_calibration, reliability_curve
from vitreous.use.report.figures import draw_reliability
from vitreous.use.report.section import ReportInput, Section

_MOST_IMAGES = 3_000
"""Images of the curve: its band needs a thousand isotonic regressions."""


def calibration_section(report: ReportInput) -> Section | None:
    """Show how often predictions of each probability are correct; only if each image has one class."""
    outputs = report.held_out
    if outputs is None or outputs.thresholds is not None:
        return None
    chosen = np.arange(len(outputs))
    if len(chosen) > _MOST_IMAGES:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _MOST_IMAGES, replace=False))
    probabilities, true = outputs.probabilities[chosen], outputs.numbers[chosen]
    found = measure_calibration(probabilities, true)
    texts = [f"{found.sentence}."]
    if len(chosen) < len(outputs):
        texts.append(f"Of {len(outputs):,} images, {len(chosen):,} were drawn at random for this.")
    if outputs.chose_weights:
        texts.append("These images have chosen the weights, so the confidence in them is slightly too high.")
    text, curve = " ".join(texts), reliability_curve(probabilities, true)
    parts = (f"<p>{escape(text[0].upper() + text[1:])}</p>", draw_reliability(curve))
    numbers = {**found.as_dict(), "sentence": found.sentence, "num_images": len(chosen)}
    return Section("calibration", "Can the probabilities be trusted?", parts, numbers)
