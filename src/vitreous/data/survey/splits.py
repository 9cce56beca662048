"""Content digests, labels, groups, given splits -> train, val or test for each sample.

What must not be torn apart is a family: equal images, the samples of one group (a person, a video), and whatever these
chains connect. A family's side is chosen by a hash of its group's name, or of the image where there is none, so that a
sample keeps its side when files are added, renamed or moved.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.sources import Texts
from vitreous.errors import DataError
from vitreous.seeding import derive, uniform

Digests = Sequence[bytes] | NDArray[Any]
"""One hash of its content for each sample; an array holds them in 16 bytes each."""

MAX_VAL = 5_000
"""A larger validation part would cost time and tell no more: the standard error of 90 % is 0.4 points at 5,000."""

_LEAST_DISTINCT = {"train": 1, "test": 3, "val": 5}


def assign_splits(
    digests: Digests,
    labels: NDArray[np.int64],
    given: Texts,
    test_ratio: float,
    val_ratio: float,
    split_seed: int,
    groups: Texts | None = None,
) -> Texts:
    """Respect the splits that samples came with; carve the missing ones from the rest.

    A sample without a split follows its family where some of that is given as test or val. Where no sample is given as
    test, families of `test_ratio` of those that are free (given as train or not at all) go to test. Where none is given
    as val, `val_ratio` of the free ones that then remain go to val, until it has `MAX_VAL` images. Each draw is a hash
    of (family, `split_seed`). Afterwards small classes are put right: every class that has a free sample has one in
    train; one with at least 3 free families has one in a carved test; one with at least 5 has one in a carved val, as
    far as that takes no other class its last one there. The family with the lowest hash moves, from the side that has
    most of the class.

    Args:
        digests: A hash of each sample's content, at least 8 bytes, `[n]`.
        labels: Class indices, `[n]`.
        given: `train`, `val`, `test` or an empty text, `[n]`.
        test_ratio: In [0, 1).
        val_ratio: In [0, 1).
        split_seed: Another seed, another split.
        groups: Each sample's group, an empty text for none, `[n]`; None: no groups.

    Returns:
        `train`, `val` or `test` for each sample, `[n]`.

    Raises:
        DataError: No sample is left for training.
    """
    family, keys, num_images = families_of(digests, groups)
    draws = uniform(derive(split_seed, "split"), keys, 2)
    given = following(given, family, len(keys))
    free = np.isin(given, ("", "train"))
    side = np.full(len(keys), "train", dtype="<U5")
    carved = [split for split, share in (("test", test_ratio), ("val", val_ratio)) if share and split not in given]
    open_families = np.unique(family[free])
    if "test" in carved:
        side[open_families[draws[open_families, 0] < test_ratio]] = "test"
    if "val" in carved:
        candidates = open_families[(side[open_families] == "train") & (draws[open_families, 1] < val_ratio)]
        candidates = candidates[np.argsort(draws[candidates, 1], kind="stable")]
        before = np.cumsum(num_images[candidates]) - num_images[candidates]
        side[candidates[before < MAX_VAL]] = "val"
    _put_small_classes_right(side, family[free], labels[free], draws, carved)
    splits = np.where(free, side[family], given)
    if "train" not in splits:
        raise DataError(f"data: none of {len(splits)} images is left for training; add some to train/")
    return splits


def torn_groups(groups: Texts, splits: Texts) -> int:
    """How many groups stand in train and in a held-out part too, because their samples were given so."""
    in_train = set(groups[splits == "train"].tolist())
    held_out = set(groups[splits != "train"].tolist())
    return len((in_train & held_out) - {""})


def families_of(
    digests: Digests, groups: Texts | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Each sample's family, `[n]`; each family's key for its draws, and its number of different images.

    Args:
        digests: A hash of each sample's content, `[n]`.
        groups: Each sample's group, an empty text for none, `[n]`; None: no groups.
    """
    _, first, image = np.unique(np.array(digests, dtype="S"), return_index=True, return_inverse=True)
    image_keys = np.array([_key(digests[i]) for i in first], dtype=np.int64)
    if groups is None:
        return image, image_keys, np.ones(len(first), dtype=np.int64)
    names, group = np.unique(groups, return_inverse=True)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Two kinds of points, images and groups; each sample that has a group is a line between them.
    grouped = np.flatnonzero(groups != "")
    ends = image[grouped], len(first) + group[grouped]
    num_points = len(first) + len(names)
    lines = coo_array((np.ones(len(grouped), dtype=np.int8), ends), shape=(num_points, num_points))
    _, component = connected_components(lines, directed=False)
    members, component = np.unique(component[: len(first)], return_inverse=True)
    family = component[image]
    # The lowest hash of its groups' names is a family's key: it stays when images join.
    keys = np.full(len(members), np.iinfo(np.int64).max)
    name_keys = np.array([_key(hashlib.blake2b(str(name).encode(), digest_size=8).digest()) for name in names])
    np.minimum.at(keys, family[grouped], name_keys[group[grouped]])
    is_alone = ~np.isin(np.arange(len(members)), family[grouped])
    keys[component[is_alone[component]]] = image_keys[is_alone[component]]
    return family, keys, np.bincount(component, minlength=len(members))


def _key(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little", signed=True)


def following(given: Texts, family: NDArray[np.int64], num_families: int) -> Texts:
    """`given`, where samples without a split take the test or val of their family; test comes before val."""
    follows = np.full(num_families, "", dtype="<U5")
    for split in ("val", "test"):
        follows[family[given == split]] = split
    return np.where(given == "", follows[family], given)


def _put_small_classes_right(
    side: Texts,
    family: NDArray[np.int64],
    labels: NDArray[np.int64],
    draws: NDArray[np.float32],
    carved: list[str],
) -> None:
    """Move single families, in place; `family` and `labels` are those of the samples that may move."""
    if not carved:
        return
    pairs = np.unique(np.stack([labels, family]), axis=1)
    classes = np.split(pairs[1], np.flatnonzero(np.diff(pairs[0])) + 1)
    is_mixed = len(np.unique(pairs[1])) < pairs.shape[1]
    for split in ("train", *carved):
        for members in classes:
            if len(members) < _LEAST_DISTINCT[split] or split in side[members]:
                continue
            # The side with most of the class gives: it keeps at least one, whatever the order of these moves.
            sides, counts = np.unique(side[members], return_counts=True)
            for here in sides[np.argsort(-counts, kind="stable")]:
                donors = members[side[members] == here]
                if is_mixed and split != "train":
                    donors = _spared(donors, side, classes)
                if len(donors):
                    side[donors[np.argmin(draws[donors, 1 if split == "val" else 0])]] = split
                    break


def _spared(donors: NDArray[np.int64], side: Texts, classes: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The donors that are not the last of any class on the side where they all stand."""
    here = side[donors[0]]
    remaining = [members[side[members] == here] for members in classes]
    last = [members[0] for members in remaining if len(members) == 1]
    return donors[~np.isin(donors, last)]
