"""Relevance of patches, labels -> for each class, the patches that matter most over all of its images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitreous.data.label_sets import memberships
from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.seeding import derive, permutation
from vitreous.training.folder.records import Listener
from vitreous.training.load import progress_to
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.pictures.contact_sheet import scaled
from vitreous.use.explain.relevance import positive_shares
from vitreous.use.explain.sample import Positions, Sample

_OUTLINE = "#ff2d95"


class ImportantPatch(NamedTuple):
    """The most relevant patch of an image: its row and column, and its share of the relevance, in [0, 1]."""

    image: int
    row: int
    column: int
    share: float

    def crop(self, picture: NDArray[np.uint8], tokenizer: ImageTokenizer, side_px: int) -> Image.Image:
        """Return what the token sees, outlined, with its eight neighbors; white beyond the border of the image."""
        patch_size = tokenizer.patch_size
        margin = round((1.5 - tokenizer.token_center) * patch_size)
        padded = np.pad(picture, ((margin, patch_size), (margin, patch_size), (0, 0)), constant_values=255)
        top, left = self.row * patch_size, self.column * patch_size
        crop = scaled(Image.fromarray(padded[top : top + 3 * patch_size, left : left + 3 * patch_size]), side_px)
        corners = (side_px // 3, side_px // 3, 2 * side_px // 3, 2 * side_px // 3)
        ImageDraw.Draw(crop).rectangle(corners, outline=_OUTLINE, width=2)
        return crop


def important_patches(
    values: Float[np.ndarray, "images rows columns"], images: Positions, most: int
) -> list[ImportantPatch]:
    """Return the most relevant patch of each image, in order of its share of the relevance, at most `most`.

    Relevance of different images cannot be compared, so its share in the image is. Values below 0 do not count.
    """
    shares = positive_shares(values).reshape(len(values), -1)
    best = shares.argmax(axis=1)
    order = np.argsort(-shares.max(axis=1), kind="stable")[:most]
    rows, columns = np.unravel_index(best, values.shape[1:])
    return [
        ImportantPatch(int(images[i]), int(rows[i]), int(columns[i]), float(shares[i, best[i]])) for i in order.tolist()
    ]


def patches_by_class(
    sample: Sample, *, most: int, most_images: int, listener: Listener
) -> dict[int, list[ImportantPatch]]:
    """Explain the score of each class on its images by the default method, and return its most relevant patches.

    An image with several labels is explained for each of them. A class has at most `most` patches. If there are more
    than `most_images` explanations to compute, some are drawn by a seed.
    """
    images, classes = memberships(sample.labels)
    drawn = np.sort(permutation(derive(0, "important"), len(images))[:most_images])
    images, classes = images[drawn], classes[drawn]
    values = sample.explained(METHODS[DEFAULT], classes, images, progress_to(listener, "explaining classes"))
    return {
        int(number): important_patches(values[classes == number], images[classes == number], most)
        for number in np.unique(classes)
    }
