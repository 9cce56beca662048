"""Strips of small pictures with captions -> pages of bounded size that show many of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE_PX = 224
"""Longer side of a picture on a sheet."""
_GAP_PX, _LINE_PX, _TEXT_PX = 8, 18, 13
_MOST_ACROSS, _MOST_DOWN = 8, 8
"""Pictures next to each other on a sheet, and strips above each other; a strip with more pictures still gets a row."""
_PAPER, _INK = "white", "#222222"


@dataclass(frozen=True)
class Strip:
    """Pictures of one image in a row.

    Attributes:
        title: Text above the pictures.
        pictures: Photo and overlays, at most `SIDE_PX` wide and high; empty for an image that could not be read.
        captions: Text below each picture.
    """

    title: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str]


def strips_on_sheet(num_pictures: int) -> int:
    """Return how many strips of this many pictures fit on a sheet."""
    return max(1, _MOST_ACROSS // max(1, num_pictures)) * _MOST_DOWN


def draw_sheet(strips: Sequence[Strip]) -> Image.Image:
    """Arrange strips in columns, row by row. `strips_on_sheet` says how many a page can have."""
    widest = max(len(strip.pictures) for strip in strips)
    across = min(len(strips), max(1, _MOST_ACROSS // max(1, widest)))
    width = max(1, widest) * (SIDE_PX + _GAP_PX)
    height = SIDE_PX + 2 * _LINE_PX + 2 * _GAP_PX
    sheet = Image.new(
        "RGB", (across * (width + _GAP_PX) + _GAP_PX, -(-len(strips) // across) * height + _GAP_PX), _PAPER
    )
    for number, strip in enumerate(strips):
        row, column = divmod(number, across)
        _draw_strip(sheet, strip, _GAP_PX + column * (width + _GAP_PX), _GAP_PX + row * height, width - _GAP_PX)
    return sheet


def _draw_strip(sheet: Image.Image, strip: Strip, left: int, top: int, width: int) -> None:
    draw, font = ImageDraw.Draw(sheet), _font()
    draw.text((left, top), _fitting(strip.title, width, font), _INK, font)
    for number, (picture, caption) in enumerate(zip(strip.pictures, strip.captions, strict=True)):
        x = left + number * (SIDE_PX + _GAP_PX)
        sheet.paste(picture, (x, top + _LINE_PX))
        draw.text((x, top + _LINE_PX + SIDE_PX), _fitting(caption, SIDE_PX, font), _INK, font)


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """Return the text without as much of its end as does not fit into `width` px."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _font() -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which has more characters than that of Pillow."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), _TEXT_PX)
