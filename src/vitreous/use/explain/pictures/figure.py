"""Photo and overlay -> a matplotlib figure with title, color scale and caption; figure -> bytes of a file."""

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from vitreous.use.explain.pictures.overlay import ColorScale

if TYPE_CHECKING:  # takes half a second to import
    from matplotlib.figure import Figure

DPI = 150
PANEL_PX = 630
"""Longer side of a picture in the figure."""
_LEAST_IN, _LEAST_BAR_IN, _GAP_IN, _TITLE_IN, _LINE_IN, _SCALE_IN = 2.6, 1.2, 0.2, 0.4, 0.2, 1.1
_CHARACTERS_PER_IN = 13
_INK, _FAINT = "#222222", "#666666"


@dataclass(frozen=True)
class Texts:
    """Title of a figure, titles of photo and overlay, what the overlay shows, and name and unit of the values."""

    title: str
    panels: tuple[str, str]
    caption: str
    scale: str


def draw_figure(pictures: tuple[Image.Image, Image.Image], texts: Texts, scale: ColorScale, unit: float) -> "Figure":
    """Draw photo and overlay next to each other, or one above the other if they are wide.

    Each pixel of the pictures is one of the figure. The numbers at the color scale are values times `unit`.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    width_in, height_in = pictures[0].width / DPI, pictures[0].height / DPI
    column_in, is_wide = max(width_in, _LEAST_IN), pictures[0].width > 2 * pictures[0].height
    total_in = (column_in if is_wide else 2 * column_in + _GAP_IN) + 2 * _GAP_IN + _SCALE_IN
    titles = [_wrapped(text, column_in) for text in texts.panels]
    title, caption = _wrapped(texts.title, total_in * 0.72), _wrapped(texts.caption, total_in)
    heads_in = [_GAP_IN + _LINE_IN * (1 + text.count("\n")) for text in titles]
    head_in = max(heads_in)
    title_in = _TITLE_IN + _LINE_IN * 1.3 * title.count("\n")
    body_in = max(height_in, _LEAST_BAR_IN)
    row_in = head_in + body_in
    foot_in = 0.25 + _LINE_IN * (1 + caption.count("\n"))
    total_height_in = title_in + row_in * (2 if is_wide else 1) + foot_in
    figure = Figure(figsize=(total_in, total_height_in), dpi=DPI, facecolor="white")
    place = (1 / total_in, 1 / total_height_in)
    text: dict[str, Any] = {"parse_math": False, "ha": "left", "va": "top", "color": _INK}  # names may contain a $
    figure.text(_GAP_IN * place[0], 1 - 0.15 * place[1], title, fontsize=12, fontweight="bold", **text)
    figure.text(_GAP_IN * place[0], (foot_in - 0.15) * place[1], caption, fontsize=9, **{**text, "color": _FAINT})
    for number, picture in enumerate(pictures):
        left_in = _GAP_IN + (0 if is_wide else number * (column_in + _GAP_IN))
        bottom_in = foot_in + body_in - height_in + (row_in if is_wide and number == 0 else 0)
        axes = figure.add_axes((left_in * place[0], bottom_in * place[1], width_in * place[0], height_in * place[1]))
        axes.imshow(picture.convert("RGB"), interpolation="none", aspect="auto")
        axes.set_axis_off()
        at = (left_in * place[0], (bottom_in + height_in + head_in - _GAP_IN / 2) * place[1])
        figure.text(*at, titles[number], fontsize=10, **text)
    left_in = total_in - _SCALE_IN
    bar = figure.add_axes((left_in * place[0], foot_in * place[1], 0.15 * place[0], body_in * place[1]))
    low = -scale.limit * unit if scale.is_signed else 0.0
    colors = ScalarMappable(Normalize(low, scale.limit * unit), scale.colors)
    figure.colorbar(colors, cax=bar).set_label(_wrapped(texts.scale, body_in), fontsize=9, color=_INK)
    bar.tick_params(labelsize=8)
    return figure


def encoded(figure: "Figure", format_: str = "png") -> bytes:
    """Return the figure as the bytes of a file of this format."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing", UserWarning)  # a box is drawn in its place
        figure.savefig(content, format=format_, dpi=DPI)
    return content.getvalue()


def _wrapped(text: str, width_in: float) -> str:
    return "\n".join(textwrap.wrap(text, max(8, int(width_in * _CHARACTERS_PER_IN))))


def formats() -> Sequence[str]:
    """Return the formats that figures can be saved in, such as png, pdf and svg."""
    from matplotlib.figure import Figure

    return sorted(Figure().canvas.get_supported_filetypes())
