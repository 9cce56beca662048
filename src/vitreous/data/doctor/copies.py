"""ImageSummaries -> findings about exact copies and near-duplicates, within and across splits and classes."""

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.cropped import find_cropped_duplicates
from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.near_duplicates import find_near_duplicates
from vitreous.data.doctor.summaries import ImageSummaries
from vitreous.data.survey.splits import connected
from vitreous.data.workers import Progress
from vitreous.wording import listed, plural

Group = NDArray[np.int64]
"""Positions in the summaries, sorted."""

_CHANGES = "re-encoded, resized, brightened or cropped"
_SPLIT_WORDS = {"val": "validation", "test": "test"}


def group_copies(
    summaries: ImageSummaries, progress: Progress | None = None, *, crops: bool = False
) -> tuple[Group, ...]:
    """Return groups of two or more images: exact copies by content, and near-duplicates by thumbnail.

    With `crops`, cropped near-duplicates are found too, which takes much longer.
    """
    _, first, content = np.unique(summaries.contents, return_index=True, return_inverse=True)
    find = find_cropped_duplicates if crops else find_near_duplicates
    family = find(summaries.gray[first], summaries.color[first], progress)[content]
    return members(family)


def join_copies(families: NDArray[np.int64], copies: tuple[Group, ...]) -> NDArray[np.int64]:
    """Return the families of images, numbered from 0, `[n]`, with the copies of an image in one family as well."""
    links = [(families[group[0]], families[other]) for group in copies for other in group[1:]]
    first, second = np.array(links, dtype=np.int64).reshape(-1, 2).T
    return connected(first, second, int(families.max(initial=-1)) + 1)[families]


def copy_findings(groups: tuple[Group, ...], namer: Namer) -> list[Finding]:
    """Report copies across splits, copies across classes, and the remaining exact copies and near-duplicates."""
    summaries = namer.summaries
    held_out, in_train = np.isin(summaries.splits, ("val", "test")), summaries.splits == "train"
    leaks = [group for group in groups if held_out[group].any() and in_train[group].any()]
    conflicts = [group for group in groups if len(np.unique(summaries.labels[group])) > 1]
    reported = {int(group[0]) for group in (*leaks, *conflicts)}
    rest = [group for group in groups if int(group[0]) not in reported]
    exact = [group for group in rest if _is_exact(summaries, group)]
    near = [group for group in rest if not _is_exact(summaries, group)]
    reports = (_across_splits, leaks), (_across_classes, conflicts), (_exact, exact), (_near, near)
    return [report(found, namer) for report, found in reports if found]


def _across_splits(groups: list[Group], namer: Namer) -> Finding:
    summaries = namer.summaries
    counts = dict.fromkeys(_SPLIT_WORDS, 0)
    num_exact = 0
    for group in groups:
        splits, contents = summaries.splits[group], summaries.contents[group]
        train_contents = set(contents[splits == "train"].tolist())
        for split, content in zip(splits.tolist(), contents.tolist(), strict=True):
            if split in counts:
                counts[split] += 1
                num_exact += content in train_contents
    total = sum(counts.values())
    num_near = total - num_exact
    images = " and ".join(plural(count, f"{_SPLIT_WORDS[split]} image") for split, count in counts.items() if count)
    kinds = []
    if num_exact:
        kinds.append(plural(num_exact, "is an exact copy", "are exact copies"))
    if num_near:
        kinds.append(f"{plural(num_near, 'is a near-duplicate', 'are near-duplicates')} ({_CHANGES})")
    how = " and ".join(kinds)
    if total == 1:
        how = how.replace("1 is", "It is", 1)
    affected = " and ".join(_SPLIT_WORDS[split] for split, count in counts.items() if count)
    split_was_given = np.isin(namer.source.splits, ("val", "test")).any()
    return Finding(
        kind="copies-across-splits",
        severity="fault",
        title=f"{images} {'is a copy of a training image' if total == 1 else 'are copies of training images'}",
        detail=f"{how}, so {affected} accuracy is optimistic.",
        advice="Remove either these images or their copies in the training split."
        if split_was_given
        else "Keep only one image of each group.",
        share=namer.share(total),
        samples=namer.groups(groups),
    )


def _across_classes(groups: list[Group], namer: Namer) -> Finding:
    total, names, labels = sum(map(len, groups)), namer.source.classes, namer.summaries.labels
    pairs = [" / ".join(names[label] for label in np.unique(labels[group])) for group in groups]
    pairs = list(dict.fromkeys(pairs))
    return Finding(
        kind="copies-across-classes",
        severity="fault",
        title=f"{total:,} images are copies of each other but have different labels",
        detail=f"{plural(len(groups), 'group')} of copies in the classes {listed([repr(pair) for pair in pairs], 3)}; "
        "at most one label per group is right.",
        advice="Decide which class is right and delete the copies in the others.",
        share=namer.share(total),
        samples=namer.groups(groups),
    )


def _exact(groups: list[Group], namer: Namer) -> Finding:
    redundant = sum(len(group) - 1 for group in groups)
    return Finding(
        kind="exact-copies",
        severity="warning",
        title=plural(redundant, "file is an exact copy of another file", "files are exact copies of other files"),
        detail=f"{plural(len(groups), 'group')} of identical files, each within one class and one split; "
        "training sees these images more often than others.",
        advice="Keep one file of each group.",
        share=namer.share(redundant),
        samples=namer.groups(groups),
    )


def _near(groups: list[Group], namer: Namer) -> Finding:
    redundant = sum(len(group) - 1 for group in groups)
    return Finding(
        kind="near-copies",
        severity="warning",
        title=plural(redundant, "image is a near-duplicate of another image", "images are near-duplicates of others"),
        detail=f"{plural(len(groups), 'group')} of images that were {_CHANGES}, each within one class and one split.",
        advice="Keep the best image of each group; another split could put copies on both sides.",
        share=namer.share(redundant),
        samples=namer.groups(groups),
    )


def members(numbers: NDArray[np.int64]) -> tuple[Group, ...]:
    """Return the positions of each number that occurs more than once, ordered by first position."""
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return tuple(sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0])))


def _is_exact(summaries: ImageSummaries, group: Group) -> bool:
    return len(np.unique(summaries.contents[group])) == 1
