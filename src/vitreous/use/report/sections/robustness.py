"""Finished run, `robustness.json` -> how its accuracy changes with the photo: pictures with curves, and a table."""

import json
from collections.abc import Mapping
from html import escape
from shlex import quote
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vitreous.tensor_file import parsing
from vitreous.use.doctor.pictures import data_uri
from vitreous.use.html import markup
from vitreous.use.report.section import Advice, ReportInput, Section

_TITLE, _MOST_PX = "How does the accuracy change with the photo?", 112
_NOTE = (
    "<p>Pictures: each change at its middle strength. Dots: accuracy from mild to strong, on a scale from 0% to 100%, "
    "with 95% intervals; dashed: unchanged photos. The 15 common corruptions, from noise to JPEG compression, change "
    "what the model gets, in severities of ImageNet-C from 85 px on and of CIFAR-10-C below; frost is generated.</p>"
)


def robustness_section(report: ReportInput) -> Section | None:
    """Show what changes of the photos cost; without a measurement, give the command. None without held-out images."""
    command, path = f"vitreous evaluate {report.run} --robustness", report.folder.robustness
    if report.evaluation is None:
        return None
    if not path.is_file():
        text = "How much accuracy noise, blur, weather, light and resizing cost is not known; measure it."
        return Section("robustness", _TITLE, (), advice=(Advice(text, command, gain=0.0),))
    from vitreous.use.evaluate.robustness.robustness import Robustness  # loads scipy.ndimage and scipy.signal

    with parsing(path, f"delete it, or repeat `{command}`"):
        values = json.loads(path.read_text("utf-8"))
        found, photo = Robustness(**{name: values[name] for name in Robustness.__dataclass_fields__}), _photo(report)
        heading, *rows = ([escape(cell) for cell in row] for row in found.table())
        cells = [_cell(effect, found.accuracy, photo) for effect in found.effects if effect["unit"]]
        parts = markup.sentences(found.sentences), _NOTE, "".join(cells), markup.table(heading, rows, numbers_from=3)
        train = f"vitreous train --recipe {quote(str(report.folder.config))}"
        advice = [
            Advice(f"{effect['name']} costs accuracy; training with such images may help.",
                   f"{train} {effect['option']}", gain=effect["loss"][0] / 10)
            for effect in found.worst if effect["option"]
        ]  # fmt: skip
        return Section("robustness", _TITLE, parts, found.as_dict(), tuple(advice))


def _photo(report: ReportInput) -> Image.Image | None:
    """Return the center of the first held-out photo, about as large as the model gets it."""
    outputs, side = report.held_out, min(_MOST_PX, *report.config.data.img_size)
    if report.pictures is None or outputs is None or outputs.indices is None:
        return None
    photo = next(iter(report.pictures.photos(outputs.indices[:1].tolist(), 2 * side)), None)
    return None if photo is None else ImageOps.fit(photo.convert("RGB"), (side, side))


def _cell(effect: Mapping[str, Any], accuracy: float, photo: Image.Image | None) -> str:
    """Return a picture of a change and the curve of its accuracy, as SVG."""
    from vitreous.use.evaluate.robustness.changes import CHANGES

    steps, name, picture = effect["strengths"], escape(effect["name"]), ""
    for change in CHANGES if photo is not None else ():
        if change.name == effect["name"]:
            changed = Image.fromarray(change(np.asarray(photo), len(steps) // 2, np.random.default_rng(0)))
            picture = f'<image y="18" width="96" height="96" href="{data_uri(changed)}"/>'
    marks = f'<path stroke-dasharray="4 3" d="M104 {114 - 96 * accuracy:.1f}H208"/>'
    for step, (share, (_, low, high)) in enumerate(zip(effect["accuracies"], effect["losses"], strict=True)):
        x, y, top, bottom = 112 + 22 * step, *(114 - 96 * value for value in (share, accuracy - low, accuracy - high))
        marks += f'<circle cx="{x}" cy="{y:.1f}" r="3"/><path d="M{x} {top:.1f}V{bottom:.1f}"/>'
    return (
        f'<svg role="img" width="210" height="136" font-size="12" fill="currentColor"><title>{name}</title>'
        f'<text y="12">{name}</text>{picture}<g stroke="currentColor">{marks}</g>'
        f'<text x="104" y="128">{steps[0]:g} to {steps[-1]:g} {escape(effect["unit"])}</text></svg>'
    )
