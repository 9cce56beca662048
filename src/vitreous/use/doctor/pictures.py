"""Samples of a source -> small pictures that are embedded in a page."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from vitreous.data.decoding.decode import decode_image
from vitreous.data.decoding.depth import Scale
from vitreous.data.sources import Source
from vitreous.data.survey.facts import Survey
from vitreous.data.workers import map_in_order
from vitreous.errors import DecodeError
from vitreous.use.explain.pictures.contact_sheet import scaled

_QUALITY = 85


def thumbnails(surveyed: Survey, indices: Sequence[int], side_px: int) -> list[Image.Image | None]:
    """Return the `thumbnail` of each image; None for one that cannot be decoded."""
    scale = Scale(surveyed.facts.value_range)
    return map_in_order(lambda n: thumbnail(surveyed.source, indices[n], side_px, scale), len(indices))


def thumbnail(source: Source, index: int, side_px: int, scale: Scale) -> Image.Image | None:
    """Resize an image so that the longer side is `side_px`; a strongly enlarged one keeps hard pixel edges.

    Of several channels, the first three are shown. None is returned for an image that cannot be decoded.
    """
    try:
        image = decode_image(
            source.encoded(index), where=source.describe(index), at_least=(side_px, side_px), scale=scale
        ).convert("RGB")
    except DecodeError:
        return None
    return scaled(image, side_px)


def data_uri(picture: Image.Image) -> str:
    """Encode a picture as a JPEG data URI for `<img src>`, without metadata."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, comment=b"")  # Pillow would copy the comment of the photo
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
