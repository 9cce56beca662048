"""Class names, thumbnails -> whether left-right mirroring keeps the meaning.

First the names speak: digits, letters and sides are not mirrored. Else a nearest-neighbour classifier on 16x16 px gray
thumbnails answers two questions, by three-fold cross-validation on up to 2,000 training images. How much accuracy is
lost when the held-out images are mirrored: the *drop*; they look like another class then, or like nothing in the set.
How much is lost when the known images are learned with their mirror images: the *cost*; classes mirror each other.

Measured on 2,000 images (400 arrows), in percentage points; the probe takes 0.3 s:

    set                accuracy   drop   cost   mirroring
    digits                 98.6   64.4    0.4   off
    mnist                  91.0   48.5    2.1   off
    sign-digits            69.6   50.0    0.3   off (the photos show one hand only)
    drawn arrows, 4 ways   98.8   48.5   20.8   off
    fashion-mnist          75.5   18.0    0.1   on (all shoes point one way, yet keep their class)
    clothing-96px          44.4    4.2   −0.2   on
    CIFAR-10               21.1    0.7   −0.4   on

Hence a drop above 30 points or a cost above 5 turns mirroring off, if it is also above 2.5 standard errors. On 200
images of each the drops were 64, 32, 30, –, 18, 1 and 1, the costs 1.0, 0.5, −1.0, –, 0.0, −0.5 and 0.0.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PROBE_SIDE_PX = 16
PROBE_IMAGES = 2_000

_LARGEST_DROP = 0.30
_LARGEST_COST = 0.05
_STANDARD_ERRORS = 2.5
_FEWEST_IMAGES = 20
_DIGIT_WORDS = frozenset(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
_SIDE_WORDS = frozenset(["left", "right", "clockwise", "counterclockwise", "anticlockwise", "east", "west"])


@dataclass(frozen=True)
class Mirror:
    """Whether mirrored images keep their class, and why, in one sentence."""

    keeps_meaning: bool
    reason: str


def judge_by_names(classes: Sequence[str]) -> Mirror | None:
    """What the class names tell; None where they tell nothing.

    Args:
        classes: The class names.

    Returns:
        A verdict against mirroring where half of the classes are single characters or digits, or any names a side.
    """
    for name in classes:
        sides = _SIDE_WORDS.intersection(re.split(r"[^a-z]+", name.casefold()))
        if sides:
            return Mirror(False, f"class {name!r} names a side")
    characters = [name for name in classes if _names_character(name)]
    if 2 * len(characters) >= len(classes):
        return Mirror(
            False, f"{len(characters)} of {len(classes)} classes are named like characters, e.g. {characters[0]!r}"
        )
    return None


def judge_by_looks(thumbnails: NDArray[np.uint8], labels: NDArray[np.int64]) -> Mirror:
    """What the images tell.

    Args:
        thumbnails: Training images, gray, `[n, PROBE_SIDE_PX, PROBE_SIDE_PX]`.
        labels: Their class indices, `[n]`.

    Returns:
        The verdict; for mirroring where there are too few images to tell.
    """
    from sklearn.model_selection import KFold
    from sklearn.neighbors import KNeighborsClassifier

    if len(labels) < _FEWEST_IMAGES:
        return Mirror(True, f"{len(labels)} images are too few to tell; photos usually keep their meaning")
    plain, mirrored, taught = (np.zeros(len(labels), dtype=bool) for _ in range(3))
    upright = thumbnails.reshape(len(labels), -1).astype(np.float32)
    turned = thumbnails[:, :, ::-1].reshape(len(labels), -1).astype(np.float32)
    for known, held_out in KFold(3, shuffle=True, random_state=0).split(upright):
        nearest = KNeighborsClassifier(1).fit(upright[known], labels[known])
        plain[held_out] = nearest.predict(upright[held_out]) == labels[held_out]
        mirrored[held_out] = nearest.predict(turned[held_out]) == labels[held_out]
        both = np.concatenate([upright[known], turned[known]])
        nearest = KNeighborsClassifier(1).fit(both, np.tile(labels[known], 2))
        taught[held_out] = nearest.predict(upright[held_out]) == labels[held_out]
    seen = f"of {len(labels)} training thumbnails a nearest neighbour recognises {plain.mean():.0%}"
    if _exceeds(plain, mirrored, _LARGEST_DROP):
        return Mirror(False, f"{seen}, mirrored only {mirrored.mean():.0%}")
    if _exceeds(plain, taught, _LARGEST_COST):
        return Mirror(
            False, f"{seen}, but {taught.mean():.0%} once it knows mirror images: some classes mirror each other"
        )
    return Mirror(True, f"{seen}, mirrored {mirrored.mean():.0%}")


def _exceeds(before: NDArray[np.bool_], after: NDArray[np.bool_], margin: float) -> bool:
    lost = before.astype(np.float64) - after
    standard_error = lost.std() / np.sqrt(len(lost))
    return bool(lost.mean() > max(margin, _STANDARD_ERRORS * standard_error))


def _names_character(name: str) -> bool:
    plain = name.strip().casefold()
    return (len(plain) == 1 and plain.isalnum()) or plain in _DIGIT_WORDS
