"""Photo size, preprocessing -> where the model's input lies in the photo; patch values -> a map in photo pixels."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Float

from vitreous.data.config import Fit
from vitreous.data.decoding.preprocess import crop_box, padded_place

Places = Float[np.ndarray, " places"]
Areas = Float[np.ndarray, "rows columns"]

_TOUCH_PX = 1e-6
"""Overlap up to which a photo pixel counts as not seen; it is rounding."""


@dataclass(frozen=True)
class View:
    """Where the model's input lies in the photo.

    Both have the origin at their upper left corner, and the first pixel reaches from 0 to 1. A large JPEG photo may be
    decoded at a reduced size, whose rounding can move the true place by less than a pixel of the input.

    `size` is height and width of the photo in px. `box` is left, top, right and bottom of the model's input, in px of
    the photo. With `pad`, it reaches beyond the photo. `token_center` is that of the model's tokenizer.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]
    token_center: float = 0.5

    @classmethod
    def of(cls, size: tuple[int, int], img_size: tuple[int, int], fit: Fit, token_center: float = 0.5) -> "View":
        """Return the view of a photo of this size through a preprocessing with this `fit`."""
        height, width = size
        box = (0.0, 0.0, float(width), float(height))
        if fit == "crop":
            box = crop_box(size, img_size)
        elif fit == "pad":
            left, top, inner_width, inner_height = padded_place(size, img_size)
            x, y = width / inner_width, height / inner_height
            box = (-left * x, -top * y, (img_size[1] - left) * x, (img_size[0] - top) * y)
        return cls(size, box, token_center)

    def centers(self, grid_size: tuple[int, int]) -> tuple[Places, Places]:
        """Return where the centers of what rows and columns of tokens see lie, in px of the photo."""
        left, top, right, bottom = self.box
        y, x = ((np.arange(count) + self.token_center) / count for count in grid_size)
        return top + y * (bottom - top), left + x * (right - left)

    def resized(self, size: tuple[int, int]) -> "View":
        """Return the view of the same photo, resized."""
        y, x = size[0] / self.size[0], size[1] / self.size[1]
        left, top, right, bottom = self.box
        return View(size, (left * x, top * y, right * x, bottom * y), self.token_center)

    def areas(self, grid_size: tuple[int, int]) -> tuple[Areas, Areas]:
        """Return the area of the photo that is nearest to each token, in px, and its share in all that is nearest.

        The rest is padding.
        """
        left, top, right, bottom = self.box
        rows, all_rows = _inside(_edges(grid_size[0], (top, bottom), self.token_center), self.size[0])
        columns, all_columns = _inside(_edges(grid_size[1], (left, right), self.token_center), self.size[1])
        areas = np.outer(rows, columns)
        return areas, areas / np.outer(all_rows, all_columns)

    def map_of(self, values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "height width"]:
        """Interpolate patch values to the pixels of the photo.

        A pixel at the center of what a token sees has its value, and pixels between centers are interpolated
        bilinearly. Where patches are smaller than pixels, a pixel has the mean over its area. After a stem of
        convolutions, values fall off from the last center to the border: only the last token sees the pixels there, and
        the less, the nearer they are to the border. Their value would otherwise be a flat block, one patch wide.

        Returns:
            Float32; NaN where the model does not see the photo.
        """
        left, top, right, bottom = self.box
        vertical = interpolation(values.shape[0], (top, bottom), self.size[0], self.token_center)
        horizontal = interpolation(values.shape[1], (left, right), self.size[1], self.token_center)
        with np.errstate(invalid="ignore"):  # values that are not finite
            return vertical @ values.astype(np.float32) @ horizontal.T


def _edges(count: int, ends: tuple[float, float], token_center: float) -> Places:
    """Return the edges of the parts of an axis that are nearest to each token, from end to end."""
    begin, end = ends
    inner = begin + (np.arange(1, count) + token_center - 0.5) * (end - begin) / count
    return np.concatenate([[begin], inner, [end]])


def _inside(edges: Places, length: int) -> tuple[Places, Places]:
    """Return the length of each part of an axis between 0 and `length`, and its whole length."""
    return np.diff(edges.clip(0, length)), np.diff(edges)


def interpolation(
    count: int, ends: tuple[float, float], length: int, token_center: float
) -> Float[np.ndarray, "pixels patches"]:
    """Return the weight of each of `count` patches between `ends` in each pixel of an axis; NaN for pixels outside."""
    begin, end = ends
    per_pixel = count / (end - begin)
    samples = ceil(max(1.0, per_pixel))  # within a pixel
    points = (np.arange(length * samples) + 0.5) / samples
    # From `count - 1` to `count`, the weight of the last token falls to 0.
    places = ((points - begin) * per_pixel - token_center).clip(0, count if token_center < 0.5 else count - 1)
    weights = (1 - np.abs(places[:, None] - np.arange(count))).clip(min=0)
    weights = weights.reshape(length, samples, count).mean(axis=1).astype(np.float32)
    first = np.arange(length)
    weights[(first + 1 <= begin + _TOUCH_PX) | (first >= end - _TOUCH_PX)] = np.nan
    return weights
