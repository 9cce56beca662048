"""Content digests, labels, given splits -> train, val or test for each sample.

A side is chosen by a hash of the image's content, so a sample keeps its side when files are added, renamed or moved,
and exact copies always stand on the same side.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitreous.data.sources import Texts
from vitreous.errors import DataError
from vitreous.seeding import derive, uniform

MAX_VAL = 5_000
"""A larger validation part would cost time and tell no more: the standard error of 90 % is 0.4 points at 5,000."""

_LEAST_DISTINCT = {"train": 1, "test": 3, "val": 5}


def assign_splits(
    digests: Sequence[bytes],
    labels: NDArray[np.int64],
    given: Texts,
    test_share: float,
    val_share: float,
    split_seed: int,
) -> Texts:
    """Respect the splits that samples came with; carve the missing ones from the rest.

    Where no sample is given as test, `test_share` of those that are free (given as train or not at all) go to test.
    Where none is given as val, `val_share` of the free ones that then remain go to val, at most `MAX_VAL`. Each draw is
    a hash of (content, `split_seed`). Afterwards small classes are put right: every class that has a free sample has
    one in train; one with at least 3 distinct free images has one in a carved test; one with at least 5 has one in a
    carved val. The sample with the lowest hash moves, from the side that has most of the class.

    Args:
        digests: A hash of each sample's content, at least 8 bytes, `[n]`.
        labels: Class indices, `[n]`.
        given: `train`, `val`, `test` or an empty text, `[n]`.
        test_share: In [0, 1).
        val_share: In [0, 1).
        split_seed: Another seed, another split.

    Returns:
        `train`, `val` or `test` for each sample, `[n]`.

    Raises:
        DataError: No sample is left for training.
    """
    _, first, group = np.unique(np.array(digests, dtype="S"), return_index=True, return_inverse=True)
    keys = np.array([int.from_bytes(digests[i][:8], "little", signed=True) for i in first], dtype=np.int64)
    draws = uniform(derive(split_seed, "split"), keys, 2)
    free = np.isin(given, ("", "train"))
    side = np.full(len(first), "train", dtype="<U5")
    carved = [split for split, share in (("test", test_share), ("val", val_share)) if share and split not in given]
    open_groups = np.unique(group[free])
    if "test" in carved:
        side[open_groups[draws[open_groups, 0] < test_share]] = "test"
    if "val" in carved:
        candidates = open_groups[(side[open_groups] == "train") & (draws[open_groups, 1] < val_share)]
        side[candidates[np.argsort(draws[candidates, 1], kind="stable")][:MAX_VAL]] = "val"
    _put_small_classes_right(side, group[free], labels[free], draws, carved)
    splits = np.where(free, side[group], given)
    if "train" not in splits:
        raise DataError(f"data: none of {len(splits)} images is left for training; add some to train/")
    return splits


def _put_small_classes_right(
    side: Texts,
    group: NDArray[np.int64],
    labels: NDArray[np.int64],
    draws: NDArray[np.float32],
    carved: list[str],
) -> None:
    """Move single groups of equal images, in place; `group` and `labels` are those of the samples that may move."""
    if not carved:
        return
    order = np.lexsort((group, labels))
    for of_class in np.split(group[order], np.flatnonzero(np.diff(labels[order])) + 1):
        members = np.unique(of_class)
        for split in ("train", *carved):
            if len(members) < _LEAST_DISTINCT[split] or split in side[members]:
                continue
            # The side with most of the class gives: it keeps at least one, whatever the order of these moves.
            sides, counts = np.unique(side[members], return_counts=True)
            donors = members[side[members] == sides[np.argmax(counts)]]
            side[donors[np.argmin(draws[donors, 1 if split == "val" else 0])]] = split
