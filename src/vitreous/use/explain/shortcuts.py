"""Relevance maps, predicted classes -> places near the border that a class relies on, which suggest a shortcut.

A model has learned a shortcut if it uses something that only happens to go with a class, such as a watermark, a time
stamp or the background (Geirhos et al. 2020, 2004.07780). The relevance maps of many images show it (Lapuschkin et al.
2019, 1902.10178): a mark is at the same place in all of them, and rarely in the middle, where the object is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.stats import hypergeom

from vitreous.printable import printable
from vitreous.use.explain.relevance import positive_shares
from vitreous.wording import listed, plural

MIN_IMAGES = 10
"""Classes that are predicted for fewer images are not checked."""
MIN_SIDE = 5
"""Grids with fewer rows or columns of patches are not checked, because the object reaches into their corners.

With 4 x 4 patches, a model of 8 px digits relies on the corner that a stroke of one digit reaches.
"""
DENSITY_RATIO = 3.0
"""Relevance is concentrated on a place if a patch there has this many times the relevance of a patch elsewhere.

Models of hand signs whose patches do not overlap have an excess of 0.6 by this ratio with a planted mark, and of 0.07
without one. With a stem of convolutions it separates them no longer (0.22 and 0.37), so that marks may be missed, and
places are exchanged before they are reported. See `benchmarks/shortcuts.py`, seed 0.
"""
MIN_EXCESS = 0.25
"""Smallest excess: share of images with concentrated relevance in a class, minus the median of the other classes."""
MAX_P_VALUE = 0.01
"""Largest p-value, corrected for the number of classes and places that are tested."""
MIN_BACKGROUND_RATE = 0.5
"""Share of the images of a class from which the border is reported even if it is the same for other classes."""
MAX_BORDER_AREA = 0.6
"""Grids whose border would be a larger share of the image have none; 6 x 6 patches have one."""
NEARLY_BEST = 0.8
"""Of all places whose excess is at least this share of the largest one, the smallest place is reported."""

_PREPOSITIONS = {"corner": "in", "edge": "at", "border": "along"}

MapsOfImages = Float[np.ndarray, "images rows columns"]
Place = Bool[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Shortcut:
    """A place near the border on which relevance is concentrated in many images of a class.

    Attributes:
        class_name: The predicted class.
        place: Name of the place, e.g. `upper left corner`.
        box: Left, top, right and bottom of the place as shares of the width and height of the model's input. The box of
            the border is the whole input.
        area: Share of the patches that belong to the place.
        relevance: Mean share of the positive relevance there, over the images with concentrated relevance.
        images: Numbers of these images, the largest share first.
        num_images: Number of images that are predicted as the class.
        others_rate: Share of the images of other classes with relevance concentrated there.
        p_value: Of Fisher's exact test that this share is as large in the class, times the number of tests;
            1 for a border that all classes rely on.
        followed: Share of exchanges of the place, with images of other classes, that the prediction follows; None if
            this was not tested.
    """

    class_name: str
    place: str
    box: tuple[float, float, float, float]
    area: float
    relevance: float
    images: tuple[int, ...]
    num_images: int
    others_rate: float
    p_value: float
    followed: float | None = None

    @property
    def sentence(self) -> str:
        """What was found and what it may mean, on one line."""
        kind = self.place.split()[-1]
        where = f"{_PREPOSITIONS[kind]} the {self.place}"
        cause = "the background" if kind == "border" else "a mark there"
        proof = ""
        if self.followed is not None:
            proof = f"exchanged with images of other classes, it moves the prediction in {self.followed:.0%} of cases; "
        return (
            f"class {printable(self.class_name)}: {self.relevance:.0%} of the relevance lies {where} "
            f"({self.area:.0%} of the area) in {len(self.images):,} of {plural(self.num_images, 'image')}, and as much "
            f"in {self.others_rate:.0%} of the images of other classes; {proof}"
            f"the model may use {cause}: look at these images"
        )


@dataclass(frozen=True)
class Shortcuts:
    """The result of a check: at most one place for each of the classes that were checked.

    The class with the largest share of images comes first; `unchecked` are the names of classes. `dismissed` are places
    that the predictions do not follow when they are exchanged.
    """

    found: tuple[Shortcut, ...]
    num_checked: int
    unchecked: tuple[str, ...]
    dismissed: tuple[Shortcut, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, one sentence for each class; then what was not checked."""
        found = [shortcut.sentence for shortcut in self.found]
        if self.num_checked and not found:
            found = [
                f"shortcuts: none of {plural(self.num_checked, 'class', 'classes')} relies on a place near the border "
                "more than the others; a mark in the middle is not noticed"
            ]
        if self.dismissed:
            places = listed([f"the {each.place} for {printable(each.class_name)}" for each in self.dismissed])
            found.append(
                f"shortcuts: relevance is concentrated on {places}, but predictions hardly change when the place "
                "is exchanged between images, so this is not a shortcut"
            )
        if self.unchecked:
            names = listed([printable(name) for name in self.unchecked])
            found.append(
                f"shortcuts: not checked for {names}; this needs {MIN_IMAGES} images predicted as the class, another "
                f"such class, and {MIN_SIDE} rows and columns of patches"
            )
        return tuple(found)


def find_shortcuts(values: MapsOfImages, predicted: Int64[np.ndarray, " images"], classes: Sequence[str]) -> Shortcuts:
    """Find classes whose relevance is concentrated on a place near the border, unlike that of most other classes.

    Classes are compared because objects, too, are often at the same place, and models may give relevance to empty
    corners. So a mark that most classes have at one place is not found, nor is a mark in the middle. Only the border is
    found without a difference: every class may have a background of its own, but objects are not all along the border.
    Values are relevance for the predicted class; those below 0 do not count.
    """
    counts = np.bincount(predicted, minlength=len(classes))
    large = np.flatnonzero(counts >= MIN_IMAGES).tolist()
    if len(large) < 2 or min(values.shape[1:]) < MIN_SIDE:
        return Shortcuts((), 0, tuple(classes))
    places = places_near_border(*values.shape[1:])
    within, areas = relevance_within(values, places.values()), np.array([place.mean() for place in places.values()])
    concentrated = is_concentrated(within, areas)
    is_border = np.array([name == "border" for name in places])
    rates = np.stack([concentrated[predicted == number].mean(axis=0) for number in large])
    found = []
    for row, number in enumerate(large):
        of_class = predicted == number
        excess = rates[row] - np.median(np.delete(rates, row, axis=0), axis=0)
        hits, totals = concentrated[of_class].sum(axis=0), concentrated.sum(axis=0)
        p_values = np.minimum(1, hypergeom.sf(hits - 1, len(values), totals, of_class.sum()) * rates.size)
        is_found = (excess >= MIN_EXCESS) & (p_values <= MAX_P_VALUE)
        if is_found.any():
            is_found &= excess >= NEARLY_BEST * excess[is_found].max()
            best = int(np.where(is_found, areas, np.inf).argmin())
        elif (rates[row] * is_border).max() >= MIN_BACKGROUND_RATE:
            best = int(is_border.argmax())
        else:
            continue
        images = np.flatnonzero(of_class & concentrated[:, best])
        images = images[np.argsort(-within[images, best], kind="stable")]
        name, place = list(places.items())[best]
        found.append(
            Shortcut(
                class_name=classes[number],
                place=name,
                box=_box(place),
                area=float(areas[best]),
                relevance=float(within[images, best].mean()),
                images=tuple(images.tolist()),
                num_images=int(of_class.sum()),
                others_rate=float(concentrated[~of_class, best].mean()),
                p_value=float(p_values[best]),
            )
        )
    found.sort(key=lambda shortcut: -len(shortcut.images) / shortcut.num_images)
    return Shortcuts(
        tuple(found), len(large), tuple(name for name, count in zip(classes, counts, strict=True) if count < MIN_IMAGES)
    )


def relevance_within(values: MapsOfImages, places: Iterable[Place]) -> Float[np.ndarray, "images places"]:
    """Return the share of the positive relevance of each image that lies in each place; 0 if there is none."""
    shares = positive_shares(values)
    return np.stack([shares[:, place].sum(axis=1) for place in places], axis=1)


def is_concentrated(
    within: Float[np.ndarray, "images places"], areas: Float[np.ndarray, " places"], ratio: float = DENSITY_RATIO
) -> Bool[np.ndarray, "images places"]:
    """Return where a patch in the place has at least `ratio` times the relevance of a patch elsewhere."""
    return within * (1 - areas) >= ratio * areas * (1 - within)


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
