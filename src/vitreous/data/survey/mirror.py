"""Class names, thumbnails -> whether a mirrored image keeps its class.

The names decide first: digits, letters and sides must not be mirrored. Otherwise a nearest-neighbor classifier on 16x16
px gray thumbnails measures two things, by three-fold cross-validation on up to 2,000 training images; images of one
group, such as a patient, are in the same fold, or the classifier would recognize patients. The *drop* is the
loss of accuracy when the held-out images are mirrored: it is large if they then resemble another class, or nothing in
the data set. The *cost* is the loss of accuracy when mirror images are added to the training images: it is large if
classes mirror each other.

Measured on 2,000 images (400 arrows), in percentage points; it takes 0.3 s:

    data set               accuracy   drop   cost   mirroring
    digits                     98.6   64.4    0.4   off
    mnist                      91.0   48.5    2.1   off
    sign-digits                69.6   50.0    0.3   off (the photos show one hand only)
    drawn arrows, 4 ways       98.8   48.5   20.8   off
    fashion-mnist              75.5   18.0    0.1   on (all shoes point one way, yet keep their class)
    clothing-96px              44.4    4.2   −0.2   on
    CIFAR-10                   21.1    0.7   −0.4   on

A drop above 30 points or a cost above 5 points turns mirroring off, if it is also above 2.5 standard errors. With a
drop above 5 points, short runs do without it: 7 epochs on CIFAR-10 reach 71.1% with mirroring and 68.6% without, 3
epochs on Fashion-MNIST 90.0% and 91.1% (one seed each). With only
200 images of each, the drops were 64, 32, 30, –, 18, 1 and 1, and the costs 1.0, 0.5, −1.0, –, 0.0, −0.5 and 0.0.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitreous.wording import plural

PROBE_SIDE_PX = 16
PROBE_IMAGES = 2_000

_LARGEST_DROP = 0.30
_LARGEST_COST = 0.05
_USUAL_DROP = 0.05
_STANDARD_ERRORS = 2.5
_FEWEST_IMAGES = 20
_NUM_FOLDS = 3
_DIGIT_WORDS = frozenset(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
_SIDE_WORDS = frozenset(["left", "right", "clockwise", "counterclockwise", "anticlockwise"])
_COMPASS_WORDS = frozenset(["east", "west"])
"""These are sides only if both occur: "West Highland white terrier" is a breed of dogs."""


@dataclass(frozen=True)
class Mirror:
    """A decision on mirroring.

    Attributes:
        keeps_class: True if a mirrored image keeps its class.
        reason: The reason in one sentence.
        looks_usual: True if mirrored images look like the others, so that they are learned in a short run, too.
    """

    keeps_class: bool
    reason: str
    looks_usual: bool = False


def judge_by_names(classes: Sequence[str]) -> Mirror | None:
    """Decide against mirroring if at least half of the class names are characters, or one is a side; else None."""
    words = [set(re.split(r"[^a-z]+", name.casefold())) for name in classes]
    sides = _SIDE_WORDS | _COMPASS_WORDS if _COMPASS_WORDS.issubset(set[str]().union(*words)) else _SIDE_WORDS
    for name, words_of_name in zip(classes, words, strict=True):
        if words_of_name & sides:
            return Mirror(False, f"class {name!r} names a side")
    characters = [name for name in classes if _names_character(name)]
    if 2 * len(characters) >= len(classes):
        return Mirror(
            False,
            f"class names that are letters or digits: {len(characters)} of {len(classes)}, e.g. {characters[0]!r}",
        )
    return None


def judge_by_images(
    thumbnails: NDArray[np.uint8], labels: NDArray[np.int64], groups: NDArray[np.str_] | None = None
) -> Mirror:
    """Decide by nearest-neighbor classification of training images; in favor of mirroring if there are too few.

    Thumbnails are gray, `[n, PROBE_SIDE_PX, PROBE_SIDE_PX]`; groups are names, empty for an image without a group.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if len(labels) < _FEWEST_IMAGES:
        few = plural(len(labels), "training image")
        return Mirror(True, f"{few} cannot show what mirroring changes; most photos can be mirrored")
    plain_correct, mirrored_correct, both_correct = (np.zeros(len(labels), dtype=bool) for _ in range(3))
    plain = thumbnails.reshape(len(labels), -1).astype(np.float32)
    mirrored = thumbnails[:, :, ::-1].reshape(len(labels), -1).astype(np.float32)
    with warnings.catch_warnings():
        # scikit-learn warns if most classes have one image. The result is then that mirroring changes nothing.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        for known, held_out in _folds(len(labels), groups):
            nearest = KNeighborsClassifier(1).fit(plain[known], labels[known])
            plain_correct[held_out] = nearest.predict(plain[held_out]) == labels[held_out]
            mirrored_correct[held_out] = nearest.predict(mirrored[held_out]) == labels[held_out]
            both = np.concatenate([plain[known], mirrored[known]])
            nearest = KNeighborsClassifier(1).fit(both, np.tile(labels[known], 2))
            both_correct[held_out] = nearest.predict(plain[held_out]) == labels[held_out]
    accuracy = f"a nearest-neighbor classifier recognizes {plain_correct.mean():.0%} of {len(labels):,} thumbnails"
    if _exceeds(plain_correct, mirrored_correct, _LARGEST_DROP):
        return Mirror(False, f"{accuracy}, but only {mirrored_correct.mean():.0%} when they are mirrored")
    if _exceeds(plain_correct, both_correct, _LARGEST_COST):
        return Mirror(
            False,
            f"{accuracy}, but only {both_correct.mean():.0%} with mirror images in its training set, because some "
            "classes mirror each other",
        )
    looks_usual = not _exceeds(plain_correct, mirrored_correct, _USUAL_DROP)
    return Mirror(True, f"{accuracy}, and {mirrored_correct.mean():.0%} when they are mirrored", looks_usual)


def _folds(count: int, groups: NDArray[np.str_] | None) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the images to learn from and those to classify, `_NUM_FOLDS` times; no group is on both sides."""
    from sklearn.model_selection import GroupKFold, KFold

    images = np.arange(count)
    if groups is not None:
        names, group = np.unique(groups, return_inverse=True)
        group = np.where(groups == "", len(names) + images, group)
        if len(np.unique(group)) >= _NUM_FOLDS:
            return GroupKFold(_NUM_FOLDS).split(images, groups=group)
    return KFold(_NUM_FOLDS, shuffle=True, random_state=0).split(images)


def _exceeds(before: NDArray[np.bool_], after: NDArray[np.bool_], margin: float) -> bool:
    """Return True if accuracy falls by more than the margin, and by more than a few standard errors."""
    lost = before.astype(np.float64) - after
    standard_error = lost.std() / np.sqrt(len(lost))
    return bool(lost.mean() > max(margin, _STANDARD_ERRORS * standard_error))


def _names_character(name: str) -> bool:
    plain = name.strip().casefold()
    return (len(plain) == 1 and plain.isalnum()) or plain in _DIGIT_WORDS
