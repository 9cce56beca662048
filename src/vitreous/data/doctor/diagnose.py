"""ImageSummaries -> findings about classes, splits, groups and labels."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.findings import Finding, Namer, Severity
from vitreous.data.doctor.mislabeled import LabelDoubts
from vitreous.data.doctor.summaries import ImageSummaries, split_names
from vitreous.data.sources import Texts
from vitreous.data.survey.facts import Survey
from vitreous.data.survey.splits import torn_groups
from vitreous.wording import listed, plural

FEW_IMAGES = 10
"""Number of training images below which a class is hardly learned."""

VERY_UNEVEN = 10.0
"""Ratio of the largest class to the smallest at which it becomes a warning, and at which the planner reacts."""

_UNEVEN = 3.0
"""Ratio at which it becomes a note."""
_SHORTCUT_GAIN = 0.2
"""Least gain in accuracy of guessing by a shortcut over always guessing the largest class."""
_DRIFT = 0.35
"""Smallest shift between splits that is reported, in standard deviations of the training images."""
_DRIFT_STANDARD_ERRORS = 4.0
_TRUSTED_ACCURACY = 0.8
"""Accuracy of the regression below which doubtful labels are only a note: most are then hard images, not errors."""
_CHANNELS = ("red", "green", "blue")


def source_findings(surveyed: Survey) -> Iterator[Finding]:
    """Report what was skipped while the images were listed, and groups that are in several splits."""
    source = surveyed.source
    for note in source.notes:
        yield Finding("listing", "warning", note, "", "Check that this was intended.", 1.0)
    splits = split_names(surveyed.indices, len(source))
    num_torn = 0 if source.groups is None else torn_groups(source.groups, splits)
    if num_torn:
        yield Finding(
            kind="torn-groups",
            severity="fault",
            title=f"{plural(num_torn, 'group has', 'groups have')} both training and held-out images",
            detail="The model can recognize the group instead of the class, so held-out accuracy is optimistic.",
            advice="Put all images of a group in one split.",
            share=1.0,
        )


def class_findings(summaries: ImageSummaries, namer: Namer) -> list[Finding]:
    """Report small classes, uneven classes, classes that a shortcut reveals, and splits that differ."""
    checks = (_few_images, _uneven, _shortcuts, _drift)
    return [finding for check in checks for finding in check(summaries, namer)]


def label_findings(doubts: LabelDoubts, judge: str, namer: Namer) -> Iterator[Finding]:
    """Report images that may be mislabeled, if there are any.

    The doubts have positions in the summaries; `judge` is what found them, e.g. `a regression on thumbnails`.
    """
    count = len(doubts.positions)
    if not count:
        return
    rows = zip(doubts.positions, doubts.likely_classes, doubts.probabilities, strict=True)
    samples = [
        (namer.sample(int(position), f"looks like {namer.source.classes[label]}, {probability:.0%}"),)
        for position, label, probability in rows
    ]
    yield Finding(
        kind="doubtful-labels",
        severity="warning" if doubts.accuracy >= _TRUSTED_ACCURACY else "note",
        title=f"{plural(count, 'image')} may be mislabeled",
        detail=f"{judge[0].upper()}{judge[1:]} classifies {doubts.accuracy:.0%} of all images correctly "
        f"(always guessing the largest class: {doubts.largest_share:.0%}), but assigns "
        f"{'this one' if count == 1 else 'these'} to another class.",
        advice="Check them, most doubtful first, and correct the labels that are wrong.",
        share=namer.share(count),
        samples=tuple(samples),
    )


def _few_images(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    names = namer.source.classes
    counts = np.bincount(summaries.labels[summaries.splits == "train"], minlength=len(names))
    severity: Severity
    for found, severity, what, advice in (
        (counts == 0, "fault", "no training images", "Add training images, or remove the class."),
        ((counts > 0) & (counts < FEW_IMAGES), "warning", f"fewer than {FEW_IMAGES} training images",
         "Add images, or merge the class with a similar one."),
    ):  # fmt: skip
        labels = np.flatnonzero(found)
        if len(labels):
            counted = listed([f"{names[label]!r} ({counts[label]})" for label in labels], 6)
            yield Finding(
                kind="few-images",
                severity=severity,
                title=f"{plural(len(labels), 'class has', 'classes have')} {what}",
                detail=f"Training images per class: {counted}.",
                advice=advice,
                share=min(max(int(counts[labels].sum()), len(labels)) / max(len(summaries), 1), 1.0),
            )


def _uneven(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    names = namer.source.classes
    counts = np.bincount(summaries.labels[summaries.splits == "train"], minlength=len(names))
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max(initial=0)).argmin())
    ratio = counts[most] / max(counts[least], 1)
    if ratio < _UNEVEN:
        return
    shown = "training shows all classes equally often, unless `--data.sampler` says otherwise."
    yield Finding(
        kind="uneven-classes",
        severity="warning" if ratio >= VERY_UNEVEN else "note",
        title=f"The largest class has {ratio:.1f} times the training images of the smallest",
        detail=f"{names[most]!r} has {counts[most]:,} and {names[least]!r} has {counts[least]:,}; overall accuracy "
        "hides how well small classes are classified.",
        advice="Judge by balanced accuracy and the recall of each class; "
        + (shown if ratio >= VERY_UNEVEN else "`--data.sampler balanced` shows all classes equally often."),
        share=1.0,
    )


def _shortcuts(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    """Report if color, file type or size reveals the class: a model may learn that instead of what images show."""
    sizes = np.array([f"images of {height}x{width} px" for height, width in summaries.sizes], dtype=np.str_)
    colors = np.where(summaries.without_color, "images without color", "images with color")
    types = np.char.add("files of type ", summaries.kinds)
    for what, values in (("presence of color", colors), ("file type", types), ("image size", sizes)):
        shortcut = _find_shortcut(values, summaries.labels)
        if shortcut is None:
            continue
        accuracy, base, value, label, purity = shortcut
        yield Finding(
            kind="given-away",
            severity="warning",
            title=f"The {what} reveals the class: {purity:.0%} of the {value} are {namer.source.classes[label]!r}",
            detail=f"Guessing the class from the {what} is right for {accuracy:.0%} of the images, always guessing "
            f"the largest class for {base:.0%}, so the model may learn this shortcut.",
            advice="Take images of all classes from the same source, or convert all of them in the same way.",
            share=1.0,
        )


def _find_shortcut(values: Texts, labels: NDArray[np.int64]) -> tuple[float, float, str, int, float] | None:
    """Guess the class of each image as the most frequent class among the other images with the same value.

    Returns:
        Accuracy of the guesses, accuracy of always guessing the largest class, the value that reveals its class best,
        the most frequent class of that value, and the share of that class. None if guessing does not help.
    """
    names, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    common = counts >= max(5, len(values) // 100)
    if not len(labels) or len(names) < 2 or not common.any():
        return None
    # Rare values are pooled: otherwise each would reveal the class of the few images that have it.
    group = np.where(common, np.arange(len(names)), len(names))[inverse]
    table = np.zeros((len(names) + 1, int(labels.max()) + 2), dtype=np.int64)
    np.add.at(table, (group, labels), 1)
    second = np.sort(table, axis=1)[:, -2]
    accuracy = float((table[group, labels] - 1 > second[group]).mean())
    base = table.sum(axis=0).max() / len(labels)
    if accuracy - base < _SHORTCUT_GAIN:
        return None
    purity = np.where(common, table[:-1].max(axis=1) / counts, 0.0)
    best = int(np.lexsort((counts, purity))[-1])
    return accuracy, float(base), str(names[best]), int(table[best].argmax()), float(purity[best])


def _drift(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    train = summaries.splits == "train"
    for split, word in (("val", "validation"), ("test", "test")):
        other = summaries.splits == split
        if min(train.sum(), other.sum()) < 2:
            continue
        for what, values in (("brightness", summaries.means), ("contrast", summaries.stds)):
            ours, theirs = values[train].astype(np.float64), values[other].astype(np.float64)
            spread = ours.std(axis=0).clip(min=1e-3)
            shift = (theirs.mean(axis=0) - ours.mean(axis=0)) / spread
            error = np.sqrt(1 / len(ours) + 1 / len(theirs))
            channel = int(np.abs(shift).argmax())
            size = abs(shift[channel])
            if size < max(_DRIFT, _DRIFT_STANDARD_ERRORS * error):
                continue
            color = "gray" if summaries.without_color.all() else _CHANNELS[channel]
            where = f"band {channel + 1}" if summaries.has_bands else color
            yield Finding(
                kind="drift",
                severity="warning",
                title=f"The {what} of {word} images differs from training images by {size:.1f} standard deviations",
                detail=f"The mean {what} ({where}, 0 to 255) is {theirs[:, channel].mean():.0f} in {word} images "
                f"and {ours[:, channel].mean():.0f} in training images.",
                advice="Take all splits from the same source, or expect scores to differ between them.",
                share=namer.share(int(other.sum())),
            )
