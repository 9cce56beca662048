"""Pictures for the report without a data set: a function makes them from numbers of images and the longer side."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from vitreous.use.report.photos import Pictures

Make = Callable[[Sequence[int], int], list[Image.Image | None]]


class Thumbnails(Pictures):
    source: Any = None

    def __init__(self, make: Make) -> None:
        self.make = make

    def photos(self, indices: Sequence[int], side_px: int) -> list[Image.Image | None]:
        return self.make(indices, side_px)


NO_THUMBNAILS = Thumbnails(lambda indices, side_px: [None] * len(indices))
