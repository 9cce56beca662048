"""Looks -> which images are copies of each other, and what is wrong with that."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.near_duplicates import find_copies
from vitreous.data.doctor.summaries import Looks
from vitreous.data.workers import Progress
from vitreous.wording import listed, plural

Group = NDArray[np.int64]
"""Positions in the looks."""


@dataclass(frozen=True, eq=False)
class Copies:
    """Groups of two or more images, each group sorted, as positions in the looks.

    Attributes:
        groups: Images that are copies of each other, exact ones and others.
        exact: Images whose bytes are equal, each such set within one of `groups`.
    """

    groups: tuple[Group, ...]
    exact: tuple[Group, ...]


def group_copies(looks: Looks, progress: Progress | None = None) -> Copies:
    """Exact copies by their content, others by their looks; `progress` counts images that were compared."""
    _, first, content = np.unique(looks.contents, return_index=True, return_inverse=True)
    family = find_copies(looks.gray[first], looks.colour[first], progress)[content]
    return Copies(groups=_members(family), exact=_members(content))


def copy_findings(looks: Looks, copies: Copies, namer: Namer) -> list[Finding]:
    """Copies on both sides of a split, copies in two classes, and the rest.

    Args:
        looks: What was seen.
        copies: Of `group_copies`.
        namer: Names the samples.
    """
    leaks = [group for group in copies.groups if _held_out(looks, group).any() and _in_train(looks, group).any()]
    conflicts = [group for group in copies.groups if len(np.unique(looks.labels[group])) > 1]
    told = {int(group[0]) for group in (*leaks, *conflicts)}
    rest = [group for group in copies.groups if int(group[0]) not in told]
    exact = [group for group in rest if _num_contents(looks, group) == 1]
    near = [group for group in rest if _num_contents(looks, group) > 1]
    found = [
        _across_splits(looks, leaks, namer),
        _across_classes(looks, conflicts, namer),
        _exact(exact, namer),
        _near(near, namer),
    ]
    return [finding for finding in found if finding is not None]


def _across_splits(looks: Looks, groups: list[Group], namer: Namer) -> Finding | None:
    if not groups:
        return None
    held = dict.fromkeys(("val", "test"), 0)
    num_exact = 0
    for group in groups:
        train = set(looks.contents[group[_in_train(looks, group)]].tolist())
        for position in group[_held_out(looks, group)]:
            held[str(looks.splits[position])] += 1
            num_exact += int(looks.contents[position]) in train
    total = sum(held.values())
    where = " and ".join(f"{count:,} {split}" for split, count in held.items() if count)
    kinds = {"exact": num_exact, "re-encoded, resized or with other brightness": total - num_exact}
    how = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    given = np.isin(namer.source.splits, ("val", "test")).any()
    return Finding(
        kind="copies-across-splits",
        severity="fault",
        title=f"{where} {'image has a copy' if total == 1 else 'images have copies'} among the training images",
        detail=f"{listed(how)}; held-out accuracy flatters.".capitalize(),
        advice="Remove them from the held-out folders, or their copies from train."
        if given
        else "Keep one image of each group, then every copy is on one side.",
        share=namer.share(total),
        samples=namer.groups(groups),
    )


def _across_classes(looks: Looks, groups: list[Group], namer: Namer) -> Finding | None:
    if not groups:
        return None
    total = sum(map(len, groups))
    pairs = [" / ".join(namer.source.classes[label] for label in np.unique(looks.labels[group])) for group in groups]
    named = listed([repr(pair) for pair in dict.fromkeys(pairs)], 3)
    return Finding(
        kind="copies-across-classes",
        severity="fault",
        title=f"{total:,} images are copies of each other in different classes",
        detail=f"{plural(len(groups), 'group')}, between {named}: of each, all labels but one are wrong.",
        advice="Decide which class is right and delete the other copies.",
        share=namer.share(total),
        samples=namer.groups(groups),
    )


def _exact(groups: list[Group], namer: Namer) -> Finding | None:
    if not groups:
        return None
    spare = sum(len(group) - 1 for group in groups)
    return Finding(
        kind="exact-copies",
        severity="warning",
        title=f"{plural(spare, 'file is an exact copy', 'files are exact copies')} of another",
        detail=f"{plural(len(groups), 'group')} of equal bytes, each within one class and on one side; "
        "they weigh double.",
        advice="Keep one of each group.",
        share=namer.share(spare),
        samples=namer.groups(groups),
    )


def _near(groups: list[Group], namer: Namer) -> Finding | None:
    if not groups:
        return None
    spare = sum(len(group) - 1 for group in groups)
    return Finding(
        kind="near-copies",
        severity="warning",
        title=f"{plural(spare, 'image is a near copy', 'images are near copies')} of another",
        detail=f"{plural(len(groups), 'group')}, re-encoded, resized or with other brightness, each within one "
        "class and on one side.",
        advice="Keep the best of each group: another split might part them.",
        share=namer.share(spare),
        samples=namer.groups(groups),
    )


def _members(numbers: NDArray[np.int64]) -> tuple[Group, ...]:
    """Positions that share a number, for numbers that two or more have; in order of their first."""
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return tuple(sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0])))


def _held_out(looks: Looks, group: Group) -> NDArray[np.bool_]:
    return np.isin(looks.splits[group], ("val", "test"))


def _in_train(looks: Looks, group: Group) -> NDArray[np.bool_]:
    return looks.splits[group] == "train"


def _num_contents(looks: Looks, group: Group) -> int:
    return len(np.unique(looks.contents[group]))
