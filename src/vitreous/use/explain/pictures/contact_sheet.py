"""Strips of small pictures with captions -> pages of bounded size that show many of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE_PX = 224
"""Longer side of a picture on a sheet, unless another one is given."""
_GAP_PX, _LINE_PX, _TEXT_PX = 8, 18, 13
_MOST_ACROSS, _MOST_DOWN = 8, 8
"""Pictures next to each other on a sheet, and strips above each other; a strip with more pictures still gets a row."""
_PAPER, _INK = "white", "#222222"


@dataclass(frozen=True)
class Strip:
    """Pictures in a row, with a title above them and a caption below each.

    Photos and overlays are as `scaled` returns them; there are none for an image that could not be read.
    """

    title: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str]


def scaled(picture: Image.Image, side_px: int) -> Image.Image:
    """Return a picture whose longer side has this number of px; small ones are enlarged and keep their pixels."""
    zoom = side_px / max(picture.size)
    size = max(1, round(picture.width * zoom)), max(1, round(picture.height * zoom))
    return picture.resize(size, Image.Resampling.NEAREST if zoom > 2 else Image.Resampling.BICUBIC)


def strips_on_sheet(num_pictures: int) -> int:
    """Return how many strips of this many pictures fit on a sheet."""
    return max(1, _MOST_ACROSS // max(1, num_pictures)) * _MOST_DOWN


def draw_sheet(strips: Sequence[Strip], side_px: int = SIDE_PX) -> Image.Image:
    """Arrange strips in columns, row by row. `strips_on_sheet` says how many a page can have."""
    widest = max(len(strip.pictures) for strip in strips)
    across = min(len(strips), max(1, _MOST_ACROSS // max(1, widest)))
    width, height = max(1, widest) * (side_px + _GAP_PX), side_px + 2 * _LINE_PX + 2 * _GAP_PX
    size = across * (width + _GAP_PX) + _GAP_PX, -(-len(strips) // across) * height + _GAP_PX
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    for number, strip in enumerate(strips):
        row, column = divmod(number, across)
        left, top = _GAP_PX + column * (width + _GAP_PX), _GAP_PX + row * height
        draw.text((left, top), _fitting(strip.title, width - _GAP_PX, font), _INK, font)
        for place, (picture, caption) in enumerate(zip(strip.pictures, strip.captions, strict=True)):
            x = left + place * (side_px + _GAP_PX)
            sheet.paste(picture, (x, top + _LINE_PX))
            draw.text((x, top + _LINE_PX + side_px), _fitting(caption, side_px, font), _INK, font)
    return sheet


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """Cut off the end of a text that is wider than `width` px."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _font() -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which has more characters than that of Pillow."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), _TEXT_PX)
