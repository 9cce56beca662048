"""Model, images, target -> what a method returns: a value for each patch of each image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.tensors import Images, PerImage

PatchValues = Float[Tensor, "batch rows columns"]
"""One value for each patch of each image; the patches are laid out as in the image."""


@dataclass(frozen=True)
class Relevance:
    """How much each patch contributes to the score.

    Attributes:
        values: `[batch, rows, columns]`, float32. Only values of one image by one method can be compared.
        errors: Standard errors of the values, of the same shape; None for methods without sampling.
        gaps: For methods whose values should sum to a difference of scores: by how much they miss it, as a share of
            that difference, `[batch]`. None for other methods.
    """

    values: PatchValues
    errors: PatchValues | None = None
    gaps: PerImage | None = None


def summed_by_token(tokenizer: ImageTokenizer, values: Images) -> PatchValues:
    """Sum the values of all channels and pixels; each pixel counts for the token with the nearest center."""
    row_of, column_of = (tokenizer.nearest_tokens(count).to(values.device) for count in tokenizer.grid_size(values))
    by_row = values.new_zeros(len(values), int(row_of[-1]) + 1, values.shape[3]).index_add(1, row_of, values.sum(dim=1))
    return by_row.new_zeros(*by_row.shape[:2], int(column_of[-1]) + 1).index_add(2, column_of, by_row)


def positive_shares(values: Float[np.ndarray, "images rows columns"]) -> Float[np.ndarray, "images rows columns"]:
    """Return the share of each patch in the positive relevance of its image, in float64; 0 if there is none."""
    positive = np.asarray(values, dtype=np.float64).clip(min=0)
    totals = positive.sum(axis=(1, 2), keepdims=True)
    return positive / np.where(totals > 0, totals, 1)
