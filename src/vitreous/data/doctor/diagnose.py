"""Looks -> findings about classes, splits, groups and labels."""

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.findings import Finding, Namer, Severity
from vitreous.data.doctor.mislabeled import Doubts
from vitreous.data.doctor.summaries import Looks
from vitreous.data.sources import Texts
from vitreous.data.survey.facts import Survey
from vitreous.data.survey.splits import torn_groups
from vitreous.wording import listed, plural

FEW_IMAGES = 10
"""A class with fewer training images is hardly learned."""

_UNEVEN, _VERY_UNEVEN = 3.0, 10.0
_TELLS_CLASS = 0.2
_DRIFT = 0.35
_DRIFT_STANDARD_ERRORS = 4.0
_TRUSTED = 0.8
"""A regression that is right less often finds more hard images than wrong labels."""
_CHANNELS = ("red", "green", "blue")


def source_findings(surveyed: Survey) -> list[Finding]:
    """What was passed over when the set was listed, and groups that stand on both sides of a split."""
    source = surveyed.source
    found = [Finding("listing", "warning", note, "", "See whether that was meant.", 1.0) for note in source.notes]
    splits = np.zeros(len(source), dtype="<U5")
    for split, members in surveyed.indices.items():
        splits[members] = split
    num_torn = 0 if source.groups is None else torn_groups(source.groups, splits)
    if num_torn:
        found.append(
            Finding(
                kind="torn-groups",
                severity="fault",
                title=f"{plural(num_torn, 'group stands', 'groups stand')} in train and in val or test",
                detail="What is learned of a group answers for it in the test; held-out accuracy flatters.",
                advice="Give each group to one split.",
                share=1.0,
            )
        )
    return found


def class_findings(looks: Looks, namer: Namer) -> list[Finding]:
    """Classes with too few images, uneven classes, classes that something trivial gives away, splits that differ."""
    return [*_few(looks, namer), *_uneven(looks, namer), *_given_away(looks, namer), *_drift(looks, namer)]


def label_finding(doubts: Doubts, basis: str, namer: Namer) -> list[Finding]:
    """Images whose label is in doubt, if there are any.

    Args:
        doubts: Of `find_doubts`.
        basis: What the features are, e.g. `thumbnails`.
        namer: Names the samples.
    """
    count = len(doubts.positions)
    if not count:
        return []
    samples = [
        (namer.sample(int(position), f"looks like {namer.source.classes[label]} ({probability:.2f})"),)
        for position, label, probability in zip(
            doubts.positions, doubts.looks_like, doubts.probability, strict=True
        )
    ]  # fmt: skip
    return [
        Finding(
            kind="doubtful-labels",
            severity="warning" if doubts.accuracy >= _TRUSTED else "note",
            title=f"{plural(count, 'image looks', 'images look')} like another class",
            detail=f"A regression on {basis}, cross-validated, is right on {doubts.accuracy:.0%} of the images and "
            "sure of another class here; it errs too.",
            advice="Look at them, most doubtful first, and move those that stand in the wrong class.",
            share=namer.share(count),
            samples=tuple(samples),
        )
    ]


def _few(looks: Looks, namer: Namer) -> list[Finding]:
    classes = namer.source.classes
    counts = np.bincount(looks.labels[looks.splits == "train"], minlength=len(classes))
    findings = []
    severity: Severity
    for found, severity, many, advice in (
        (counts == 0, "fault", "no training image", "Add images, or remove the class."),
        ((counts > 0) & (counts < FEW_IMAGES), "warning", f"fewer than {FEW_IMAGES} training images",
         "Add images, or join it with a class that means nearly the same."),
    ):  # fmt: skip
        labels = np.flatnonzero(found)
        if len(labels):
            named = listed([f"{classes[label]!r} ({counts[label]})" for label in labels], 6)
            title = f"{plural(len(labels), 'class has', 'classes have')} {many}"
            share = max(int(counts[labels].sum()), len(labels)) / max(len(looks), 1)
            findings.append(Finding("few-images", severity, title, f"Namely {named}.", advice, min(share, 1.0)))
    return findings


def _uneven(looks: Looks, namer: Namer) -> list[Finding]:
    counts = np.bincount(looks.labels[looks.splits == "train"], minlength=len(namer.source.classes))
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max(initial=0)).argmin())
    ratio = counts[most] / max(counts[least], 1)
    if ratio < _UNEVEN:
        return []
    return [
        Finding(
            kind="uneven-classes",
            severity="warning" if ratio >= _VERY_UNEVEN else "note",
            title=f"the largest class has {ratio:.1f} times the images of the smallest",
            detail=f"{namer.source.classes[most]!r} has {counts[most]:,} to train, "
            f"{namer.source.classes[least]!r} {counts[least]:,}; accuracy hides what becomes of the small ones.",
            advice="Judge by the recall of each class; `--data.sampler balanced` shows all equally often.",
            share=1.0,
        )
    ]


def _given_away(looks: Looks, namer: Namer) -> list[Finding]:
    """Whether colour, kind or size of the file tell the class: a model may learn that instead of the picture."""
    sizes = np.array([f"{height}x{width} px" for height, width in looks.sizes], dtype=np.str_)
    colour = np.where(looks.without_colour, "no colour", "colour")
    findings = []
    for what, values in (("lack of colour", colour), ("kind of file", looks.kinds), ("size", sizes)):
        gain, value, label, inside = _tells(values, looks.labels)
        if gain < _TELLS_CLASS:
            continue
        name = namer.source.classes[label]
        findings.append(
            Finding(
                kind="given-away",
                severity="warning",
                title=f"the {what} of an image tells its class",
                detail=f"Guessing from it alone is right {gain:.0%} more often than from nothing; e.g. {inside:.0%} of "
                f"what is {value} is {name!r}.",
                advice="Give all classes images of one origin, or convert them alike, lest the model learns this.",
                share=1.0,
            )
        )
    return findings


def _tells(values: Texts, labels: NDArray[np.int64]) -> tuple[float, str, int, float]:
    """How much better than the largest class a guess by value is, and the value that tells most, of which class."""
    names, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    common = counts >= max(5, len(values) // 100)
    if not len(labels) or len(names) < 2 or not common.any():
        return 0.0, "", 0, 0.0
    # Values that few images have are one value together: else each would tell its own few images' class.
    group = np.where(common, np.arange(len(names)), len(names))[inverse]
    table = np.zeros((len(names) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(table, (group, labels), 1)
    base = table.sum(axis=0).max()
    gain = (table.max(axis=1).sum() - base) / len(labels)
    purity = np.where(common, table[:-1].max(axis=1) / counts, 0.0)
    best = int(np.lexsort((counts, purity))[-1])
    return float(gain), str(names[best]), int(table[best].argmax()), float(purity[best])


def _drift(looks: Looks, namer: Namer) -> list[Finding]:
    train = looks.splits == "train"
    findings = []
    for split in ("val", "test"):
        other = looks.splits == split
        if min(train.sum(), other.sum()) < 2:
            continue
        for what, values in (("brightness", looks.means), ("contrast", looks.stds)):
            here, there = values[train].astype(np.float64), values[other].astype(np.float64)
            spread = here.std(axis=0).clip(min=1e-3)
            shift = (there.mean(axis=0) - here.mean(axis=0)) / spread
            error = np.sqrt(1 / len(here) + 1 / len(there))
            channel = int(np.abs(shift).argmax())
            if abs(shift[channel]) < max(_DRIFT, _DRIFT_STANDARD_ERRORS * error):
                continue
            where = "gray" if looks.without_colour.all() else _CHANNELS[channel]
            findings.append(
                Finding(
                    kind="drift",
                    severity="warning",
                    title=f"{split} images differ from training images in {what}",
                    detail=f"Mean {what} ({where}) is {there[:, channel].mean():.0f} there and "
                    f"{here[:, channel].mean():.0f} in train, {abs(shift[channel]):.1f} standard deviations apart.",
                    advice="Take all splits from one place, or expect the scores of one not to hold for the other.",
                    share=namer.share(int(other.sum())),
                )
            )
    return findings
