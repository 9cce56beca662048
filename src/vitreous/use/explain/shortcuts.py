"""Predictions that moved with a place, predicted classes -> places near the border that a class relies on: shortcuts.

A model has learned a shortcut if it uses something that only happens to go with a class, such as a watermark, a time
stamp or the background (Geirhos et al. 2020, 2004.07780). A mark is at the same place in many images of the class, and
rarely in the middle, where the object is. So a place near the border is suspicious if its pixels give the class to
images of other classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from scipy.stats import binom

from vitreous.wording import listed, plural, printable

MIN_IMAGES = 10
"""Classes that are predicted for fewer images are not checked."""
MIN_SIDE = 5
"""Grids with fewer rows or columns of patches are not checked.

An edge has at least one patch of depth, so it would be a quarter of the image or more, and the object reaches into it.
"""
MAX_CHANCE = 0.1
"""Share of images for which copying a place near the border may change the prediction without a shortcut.

It is between that of models with and without planted marks in `benchmarks/shortcuts.py`.
"""
MAX_P_VALUE = 0.01
"""Largest p-value, corrected for the number of classes and places that are tested."""
MAX_BORDER_AREA = 0.6
"""Grids whose border would be a larger share of the image have none; 6 x 6 patches have one."""
NEARLY_BEST = 0.8
"""Of all places that move at least this share of what the best one moves, the smallest place is reported."""

Place = Bool[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Shortcut:
    """A place near the border: when it is copied into images of other classes, they are predicted as the class.

    Attributes:
        class_name: The predicted class.
        place: Name of the place, e.g. `upper left corner`.
        box: Left, top, right and bottom of the place as shares of the width and height of the model's input. The box of
            the border is the whole input.
        area: Share of the patches that belong to the place.
        images: Numbers of the images of the class for which this happened.
        num_images: Number of images that are predicted as the class.
        p_value: Of the exact binomial test that this happens in more than `MAX_CHANCE` of the images, times the number
            of tests.
    """

    class_name: str
    place: str
    box: tuple[float, float, float, float]
    area: float
    images: tuple[int, ...]
    num_images: int
    p_value: float

    @property
    def followed(self) -> float:
        """Share of the images of the class for which this happened."""
        return len(self.images) / self.num_images

    @property
    def sentence(self) -> str:
        """What was found and what it may mean, on one line."""
        name, cause = printable(self.class_name), "the background" if self.place == "border" else "a mark there"
        return (
            f"class {name}: when the {self.place} ({self.area:.0%} of the area) is copied into an image of another "
            f"class, the model predicts {name} for {len(self.images):,} of {plural(self.num_images, 'image')}; it may "
            f"use {cause}: look at these images"
        )


@dataclass(frozen=True)
class Shortcuts:
    """The result of a check: at most one place for each of the classes that were checked.

    The class with the largest share of images comes first; `unchecked` are the names of classes.
    """

    found: tuple[Shortcut, ...]
    num_checked: int
    unchecked: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, one sentence for each class; then what was not checked."""
        found = [shortcut.sentence for shortcut in self.found]
        if self.num_checked and not found:
            found = [
                f"shortcuts: none of {plural(self.num_checked, 'class', 'classes')} is recognized by a place near the "
                "border; a mark in the middle is not noticed"
            ]
        if self.unchecked:
            names = listed([printable(name) for name in self.unchecked])
            found.append(
                f"shortcuts: not checked for {names}; this needs {MIN_IMAGES} images predicted as the class, another "
                f"such class, and {MIN_SIDE} rows and columns of patches"
            )
        return tuple(found)


def classes_to_check(
    predicted: Int64[np.ndarray, " images"], num_classes: int, grid_size: tuple[int, int]
) -> list[int]:
    """Return the numbers of the classes with enough images; none without another such class, or on a small grid."""
    large = np.flatnonzero(np.bincount(predicted, minlength=num_classes) >= MIN_IMAGES).tolist()
    return large if len(large) > 1 and min(grid_size) >= MIN_SIDE else []


def find_shortcuts(
    moved: Bool[np.ndarray, "images places"],
    predicted: Int64[np.ndarray, " images"],
    checked: Sequence[int],
    classes: Sequence[str],
    places: Mapping[str, Place],
) -> Shortcuts:
    """Find classes that a place near the border gives to other images more often than objects do.

    Args:
        moved: Whether each place of each image gave its class to an image of another class.
        predicted: The class of each image.
        checked: The numbers of the classes to check.
        classes: The names of all classes.
        places: The places by name.
    """
    areas, found = np.array([place.mean() for place in places.values()]), []
    for number in checked:
        own = np.flatnonzero(predicted == number)
        hits = moved[own].sum(axis=0)
        p_values = np.minimum(1, binom.sf(hits - 1, len(own), MAX_CHANCE) * len(checked) * len(places))
        is_found = p_values <= MAX_P_VALUE
        if not is_found.any():
            continue
        is_found &= hits >= NEARLY_BEST * hits.max()
        best = int(np.where(is_found, areas, np.inf).argmin())
        name, place = list(places.items())[best]
        found.append(
            Shortcut(
                class_name=classes[number],
                place=name,
                box=_box(place),
                area=float(areas[best]),
                images=tuple(own[moved[own, best]].tolist()),
                num_images=len(own),
                p_value=float(p_values[best]),
            )
        )
    found.sort(key=lambda shortcut: -shortcut.followed)
    unchecked = tuple(name for number, name in enumerate(classes) if number not in checked)
    return Shortcuts(tuple(found), len(checked), unchecked)


def places_near_border(rows: int, columns: int) -> dict[str, Place]:
    """Return the corners, a quarter of each side; the edges, an eighth of a side; and the border, which is all edges.

    Small grids have no border: it would be most of the image.
    """
    y, x = np.indices((rows, columns))
    (upper, lower), (left, right) = _ends(y, rows, 4), _ends(x, columns, 4)
    places = {
        "upper left corner": upper & left,
        "upper right corner": upper & right,
        "lower left corner": lower & left,
        "lower right corner": lower & right,
    }
    (upper, lower), (left, right) = _ends(y, rows, 8), _ends(x, columns, 8)
    edges = {"upper edge": upper, "lower edge": lower, "left edge": left, "right edge": right}
    border = upper | lower | left | right
    return places | edges | ({"border": border} if border.mean() <= MAX_BORDER_AREA else {})


def _ends(at: Int64[np.ndarray, "rows columns"], length: int, parts: int) -> tuple[Place, Place]:
    """Return the first and the last of several parts of a side, at least one patch each."""
    depth = max(1, round(length / parts))
    return at < depth, at >= length - depth


def _box(place: Place) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(place.any(axis=1)), np.flatnonzero(place.any(axis=0))
    high, wide = place.shape
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
    return left / wide, top / high, (right + 1) / wide, (bottom + 1) / high
