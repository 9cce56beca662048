"""Relevance of many images, their predicted classes -> a sheet: for each class where it lies, and example photos."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitreous.use.explain.pictures.contact_sheet import Strip, draw_sheet, scaled
from vitreous.use.explain.pictures.geometry import View
from vitreous.use.explain.pictures.overlay import ColorScale, lay_over
from vitreous.use.explain.relevance import positive_shares
from vitreous.use.explain.sample import Sample
from vitreous.use.explain.shortcuts import Shortcut, places_near_border
from vitreous.wording import plural, printable

_MOST_CLASSES, _NUM_EXAMPLES, _SIDE_PX = 12, 4, 120
_GRAY, _OUTLINE = 128, "#00e5ff"


def draw_places(
    sample: Sample,
    values: Float[np.ndarray, "images rows columns"],
    predicted: Int64[np.ndarray, " images"],
    found: Sequence[Shortcut],
) -> Image.Image:
    """Draw a strip for each class: its mean relevance, then photos and their relevance.

    Classes with a shortcut come first, then the largest ones. The place of a shortcut is outlined, and its photos are
    those with most relevance there. Relevance is that for the predicted class; values below 0 do not count.
    """
    classes, token_center = sample.classes, sample.model.tokenizer.token_center
    shortcut_of, counts = {each.class_name: each for each in found}, np.bincount(predicted, minlength=len(classes))
    shares = positive_shares(values)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda n: (classes[n] not in shortcut_of, -counts[n]))
    gray, strips = np.full((*sample.model.config.img_size, 3), _GRAY, np.uint8), []
    for number in order[:_MOST_CLASSES]:
        own, shortcut = np.flatnonzero(predicted == number), shortcut_of.get(classes[number])
        title, captions = f"{printable(classes[number])}, {plural(len(own), 'image')}", [""] * _NUM_EXAMPLES
        examples = own[np.unique(np.linspace(0, len(own) - 1, _NUM_EXAMPLES).round().astype(np.int64))]
        if shortcut is not None:
            place, title = places_near_border(*values.shape[1:])[shortcut.place], f"{title}: {shortcut.place}"
            there = shares[:, place].sum(axis=1)
            examples = np.array(sorted(shortcut.images, key=lambda number: -there[number])[:_NUM_EXAMPLES])
            captions = [f"{share:.0%} there" for share in there[examples]]
        strip = [(_overlay(gray, shares[own].mean(axis=0), token_center, shortcut), "mean of all")]
        for picture, share, caption in zip(sample.pictures(examples), shares[examples], captions, strict=False):
            overlay = _overlay(picture, share, token_center, shortcut)
            strip += [(scaled(Image.fromarray(picture), _SIDE_PX), ""), (overlay, caption)]
        strips.append(Strip(title, *zip(*strip, strict=True)))
    return draw_sheet(strips, _SIDE_PX)


def _overlay(
    picture: NDArray[np.uint8],
    shares: Float[np.ndarray, "rows columns"],
    token_center: float,
    shortcut: Shortcut | None,
) -> Image.Image:
    """Return a picture with relevance in color, and the place of a shortcut outlined."""
    photo = scaled(Image.fromarray(picture), _SIDE_PX)
    size = photo.height, photo.width
    whole = View.of(size, size, "squash", token_center)
    overlay = lay_over(photo, whole.map_of(shares), ColorScale.of(shares, is_signed=False))
    if shortcut is not None:
        left, top, right, bottom = shortcut.box
        corners = (left * photo.width, top * photo.height, right * photo.width - 1, bottom * photo.height - 1)
        ImageDraw.Draw(overlay).rectangle(corners, outline=_OUTLINE, width=2)
    return overlay
