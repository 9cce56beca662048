"""Patch values -> one clause in plain words: where the relevance lies, and how concentrated it is."""

import numpy as np
from jaxtyping import Float

from vitreous.use.explain.pictures.geometry import View

AREA = 0.1
"""Share of the area that counts as most relevant."""

_PLACES = (("upper left", "top", "upper right"), ("left", "center", "right"), ("lower left", "bottom", "lower right"))
_ROWS, _COLUMNS = (
    ("upper third", "band across the middle", "lower third"),
    ("left third", "band down the middle", "right third"),
)
_MOST, _EVEN = 0.5, 1.5 * AREA
"""Share of the relevance that must lie in one place to name it; share of the relevance without a focus."""
_PADDING = 0.1
"""Share of the relevance in the padding from which it is mentioned."""

Values = Float[np.ndarray, "rows columns"]


def describe(values: Values, view: View, *, is_signed: bool) -> str:
    """Say where the most relevant 10% of the visible photo lie, and which share of the relevance they have.

    Only values above 0 count. `is_signed` says that the values of the method can be negative.
    """
    if not np.isfinite(values).all():
        return "the values are not finite"
    what = "what raises the score" if is_signed else "the relevance"
    relevance = values.clip(min=0).astype(np.float64)
    areas, in_photo = view.areas(values.shape)
    visible, total = relevance * in_photo, relevance.sum()
    if not visible.any():
        return "no part of the photo raises the score" if is_signed else "no part of the photo is relevant"
    top = visible * most_relevant(relevance, areas)
    share = top.sum() / visible.sum()
    where = "evenly spread" if share < _EVEN else f"most relevant: {_place(top, view)}"
    outside = 1 - visible.sum() / total
    padding = f"; {outside:.0%} of all lies in the padding" if outside >= _PADDING else ""
    return f"{where}, {share:.0%} of {what} in {AREA:.0%} of the area{padding}"


def most_relevant(relevance: Values, areas: Values) -> Values:
    """Return the share of each area that belongs to the most relevant 10%; of the last one only a part does."""
    order = np.argsort(-relevance, axis=None, kind="stable")
    before = np.cumsum(areas.flat[order]) - areas.flat[order]
    chosen = np.zeros_like(areas)
    chosen.flat[order] = np.minimum(areas.flat[order], (AREA * areas.sum() - before).clip(min=0))
    return np.divide(chosen, areas, out=chosen, where=areas > 0)


def _place(relevance: Values, view: View) -> str:
    """Name the third of the rows and columns of the photo with the highest value, if most relevance lies there."""
    y, x = view.centers(relevance.shape)
    thirds = np.zeros((3, 3))
    row, column = (_third(y, view.size[0]), _third(x, view.size[1]))
    np.add.at(thirds, (row[:, None], column[None]), relevance / relevance.sum())
    high, wide = np.unravel_index(relevance.argmax(), relevance.shape)
    at, across = row[high], column[wide]
    if thirds[at, across] >= _MOST:
        return _PLACES[at][across]
    if thirds[at].sum() >= _MOST:
        return _ROWS[at]
    if thirds[:, across].sum() >= _MOST:
        return _COLUMNS[across]
    return "several places"


def _third(places: Float[np.ndarray, " patches"], length: int) -> np.ndarray:
    return (3 * places / length).astype(np.int64).clip(0, 2)
