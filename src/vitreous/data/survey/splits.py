"""Content digests, labels, groups, given splits -> train, val or test for each sample.

Samples that must not be separated form a family: equal images, samples of one group (a person, a video), and everything
connected through these. A hash of the group's name, or of the image if it has no group, decides the split of a family.
Therefore a sample keeps its split when files are added, renamed or moved.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, label_pairs
from vitreous.data.sources import Texts
from vitreous.data.sources.source import FIXED_TRAIN
from vitreous.errors import DataError
from vitreous.seeding import derive, uniform
from vitreous.wording import plural

_FamilyTexts = Shaped[np.ndarray, "families"]
"""Texts of families of samples; `Texts` are those of samples."""

Digests = NDArray[Any]
"""A hash of each sample's content as fixed-width bytes, at least 8, `[n]`."""

MAX_VAL = 5_000
"""Maximum number of carved validation images. At 5,000, the standard error of an accuracy of 90% is only 0.4 points."""

_FEWEST_FAMILIES = {"train": 1, "test": 3, "val": 5}
"""Number of families that a class needs before it must have one in a split."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What the splits depend on.

    Attributes:
        digests: A hash of each sample's content, `[n]`.
        labels: Class indices, `[n]`; or which classes each sample has, `[n, classes]`.
        given: The split that each sample came with: `train`, `val`, `test`, `FIXED_TRAIN` or an empty string, `[n]`.
        groups: Each sample's group, an empty string for none, `[n]`; None if there are no groups.
    """

    digests: Digests
    labels: LabelArray
    given: Texts
    groups: Texts | None = None


@dataclass(frozen=True, eq=False)
class Families:
    """The family of each sample, `[n]`; each family's hash for random draws, and its number of distinct images."""

    of_sample: NDArray[np.int64]
    keys: NDArray[np.int64]
    num_images: NDArray[np.int64]


def assign_splits(samples: Samples, *, test_ratio: float, val_ratio: float, split_seed: int) -> Texts:
    """Keep the splits that samples came with, and carve missing ones out of the rest.

    A sample without a split joins the given test or val samples of its family. All other samples that are not given as
    test, val or `FIXED_TRAIN` are free. If there is no given test sample, families are drawn for test with probability
    `test_ratio`. If there is no given val sample, the remaining families are drawn for val with probability
    `val_ratio`, until val has `MAX_VAL` images. Each draw is a hash of (family, `split_seed`).

    Then small classes are fixed. Every class with a free sample gets one in train; every class with at least 3 free
    families gets one in a carved test; every class with at least 5 gets one in a carved val, unless that would take
    another class's last family there. The family with the lowest hash moves, from the split with most of the class.

    Return `train`, `val` or `test` for each sample, `[n]`. Raises DataError if no sample is left for training.
    """
    families = find_families(samples)
    draws = uniform(derive(split_seed, "split"), families.keys, 2)
    given = inherit_splits(samples.given, families)
    free = np.isin(given, ("", "train"))
    split_of_family = np.full(len(families.keys), "train", dtype="<U5")
    carved = [split for split, ratio in (("test", test_ratio), ("val", val_ratio)) if ratio and split not in given]
    candidates = np.unique(families.of_sample[free])
    if "test" in carved:
        split_of_family[candidates[draws[candidates, 0] < test_ratio]] = "test"
    if "val" in carved:
        candidates = candidates[(split_of_family[candidates] == "train") & (draws[candidates, 1] < val_ratio)]
        candidates = candidates[np.argsort(draws[candidates, 1], kind="stable")]
        images_before = np.cumsum(families.num_images[candidates]) - families.num_images[candidates]
        split_of_family[candidates[images_before < MAX_VAL]] = "val"
    _fix_small_classes(split_of_family, families.of_sample[free], samples.labels[free], draws, carved)
    splits = np.where(free, split_of_family[families.of_sample], given)
    splits[splits == FIXED_TRAIN] = "train"
    if "train" not in splits:
        raise DataError(f"data: none of {plural(len(splits), 'image')} is left for training; add some")
    return splits


def torn_groups(groups: Texts, splits: Texts) -> int:
    """Count the groups that are in train and also in val or test, because their samples were given so."""
    in_train = set(groups[splits == "train"].tolist())
    held_out = set(groups[splits != "train"].tolist())
    return len((in_train & held_out) - {""})


def find_families(samples: Samples) -> Families:
    """Find the samples that must stay together: copies of an image, members of a group, and chains of these."""
    _, first, image = np.unique(samples.digests, return_index=True, return_inverse=True)
    image_keys = np.array([_key(samples.digests[i]) for i in first], dtype=np.int64)
    if samples.groups is None:
        return Families(of_sample=image, keys=image_keys, num_images=np.ones(len(first), dtype=np.int64))
    names, group = np.unique(samples.groups, return_inverse=True)
    # Images and groups are linked by the samples with a group.
    grouped = np.flatnonzero(samples.groups != "")
    component = connected(image[grouped], len(first) + group[grouped], len(first) + len(names))
    members, component = np.unique(component[: len(first)], return_inverse=True)
    family = component[image]
    # A family's key is the lowest hash of its groups' names, so that it does not change when images are added.
    keys = np.full(len(members), np.iinfo(np.int64).max)
    name_keys = np.array([_key(hashlib.blake2b(str(name).encode(), digest_size=8).digest()) for name in names])
    np.minimum.at(keys, family[grouped], name_keys[group[grouped]])
    without_group = ~np.isin(np.arange(len(members)), family[grouped])
    keys[component[without_group[component]]] = image_keys[without_group[component]]
    return Families(of_sample=family, keys=keys, num_images=np.bincount(component, minlength=len(members)))


def connected(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the connected component of each of `count` items, `[count]`; `first[i]` and `second[i]` are linked."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _key(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little", signed=True)


def inherit_splits(given: Texts, families: Families) -> Texts:
    """Return the given splits; samples without one take the last of `FIXED_TRAIN`, val and test in their family."""
    inherited = np.full(len(families.keys), "", dtype="<U5")
    for split in (FIXED_TRAIN, "val", "test"):
        inherited[families.of_sample[given == split]] = split
    return np.where(given == "", inherited[families.of_sample], given)


def _fix_small_classes(
    split_of_family: _FamilyTexts,
    family: NDArray[np.int64],
    labels: LabelArray,
    draws: NDArray[np.float32],
    carved: list[str],
) -> None:
    """Move single families between splits, in place; `family` and `labels` are those of the free samples."""
    if not carved:
        return
    pairs = label_pairs(labels, family)
    classes = np.split(pairs[1], np.flatnonzero(np.diff(pairs[0])) + 1)
    is_mixed = len(np.unique(pairs[1])) < pairs.shape[1]
    for split in ("train", *carved):
        for members in classes:
            if len(members) < _FEWEST_FAMILIES[split] or split in split_of_family[members]:
                continue
            # Take from the split with most of the class, so that it keeps at least one, whatever moves come later.
            sources, counts = np.unique(split_of_family[members], return_counts=True)
            for source in sources[np.argsort(-counts, kind="stable")]:
                donors = members[split_of_family[members] == source]
                if is_mixed and split != "train":
                    donors = _dispensable(donors, split_of_family, classes)
                if len(donors):
                    split_of_family[donors[np.argmin(draws[donors, 1 if split == "val" else 0])]] = split
                    break


def _dispensable(
    donors: NDArray[np.int64], split_of_family: Texts, classes: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Return the donors that are not the last family of any class in their split; all donors are in one split."""
    source = split_of_family[donors[0]]
    remaining = [members[split_of_family[members] == source] for members in classes]
    last = [members[0] for members in remaining if len(members) == 1]
    return donors[~np.isin(donors, last)]
