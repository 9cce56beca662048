"""Looks -> findings about files, sizes, colours, classes, splits and labels."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from vitreous.data.findings import Finding, Namer, Severity, counted, listed
from vitreous.data.looks import Looks
from vitreous.data.mislabelled import Doubts
from vitreous.data.sources import Texts

FEW_IMAGES = 10
"""A class with fewer training images is hardly learned."""

_NOTHING_TO_SEE = 2.0
"""Grey levels of standard deviation: below it an image is of one colour or nearly."""
_ONE_COLOUR = 1e-3
"""Grey levels: one pixel of a million that differs by one gives as much."""
_UNEVEN, _VERY_UNEVEN = 3.0, 10.0
_FAR_LARGER, _FAR_SMALLER = 4.0, 0.25
"""Of the median side."""
_ODD_ASPECT = 2.0
"""Times the median aspect ratio, either way."""
_TELLS_CLASS = 0.2
_DRIFT = 0.35
_DRIFT_STANDARD_ERRORS = 4.0
_CHANNELS = ("red", "green", "blue")


def file_findings(looks: Looks, namer: Namer) -> list[Finding]:
    """Unreadable files, images that show nothing, odd sizes."""
    return [*_unreadable(looks, namer), *_constant(looks, namer), *_sizes(looks, namer), *_aspects(looks, namer)]


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
            severity="warning",
            title=f"{counted(count, 'image looks', 'images look')} like another class",
            detail=f"A regression on {basis}, cross-validated, is right on {doubts.accuracy:.0%} of the images and "
            "sure of another class here; it errs too.",
            advice="Look at them, most doubtful first, and move those that stand in the wrong class.",
            share=namer.share(count),
            samples=tuple(samples),
        )
    ]


def _unreadable(looks: Looks, namer: Namer) -> list[Finding]:
    if not looks.unreadable:
        return []
    count = len(looks.unreadable)
    reasons = Counter(reason for _, reason in looks.unreadable).most_common()
    named = listed([f"{reason} ({number:,})" if number > 1 else reason for reason, number in reasons], 3)
    return [
        Finding(
            kind="unreadable",
            severity="warning",
            title=f"{counted(count, 'file does', 'files do')} not decode",
            detail=f"Training leaves {'it' if count == 1 else 'them'} out: {named}.",
            advice="Replace or delete what should be an image.",
            share=namer.share(count),
            samples=namer.unread(),
        )
    ]


def _constant(looks: Looks, namer: Namer) -> list[Finding]:
    found = np.flatnonzero(looks.stds.max(axis=1, initial=0.0) < _NOTHING_TO_SEE)
    if not len(found):
        return []
    exactly = int((looks.stds[found].max(axis=1) < _ONE_COLOUR).sum())
    return [
        Finding(
            kind="constant",
            severity="warning",
            title=f"{counted(len(found), 'image shows', 'images show')} nothing",
            detail=f"{exactly:,} of one colour, {len(found) - exactly:,} nearly so; {_by_class(looks, found, namer)}.",
            advice="Remove them, unless emptiness is what their class means.",
            share=namer.share(len(found)),
            samples=namer.singles(found),
        )
    ]


def _sizes(looks: Looks, namer: Namer) -> list[Finding]:
    side = np.sqrt(looks.sizes.prod(axis=1))
    typical = float(np.median(side))
    larger = np.flatnonzero(side >= _FAR_LARGER * typical)
    smaller = np.flatnonzero(side <= _FAR_SMALLER * typical)
    return [
        *_odd_sizes("larger", larger[np.argsort(-side[larger], kind="stable")], looks, namer),
        *_odd_sizes("smaller", smaller[np.argsort(side[smaller], kind="stable")], looks, namer),
    ]


def _odd_sizes(how: str, positions: NDArray[np.int64], looks: Looks, namer: Namer) -> list[Finding]:
    if not len(positions):
        return []
    median = np.median(looks.sizes, axis=0).round().astype(int)
    advice = {
        "larger": "Shrink them if that was forgotten: they are slow to read, and may be of another camera.",
        "smaller": "Replace them by larger versions, or remove them: enlarged, they show little.",
    }
    return [
        Finding(
            kind=f"far-{how}",
            severity="note",
            title=f"{counted(len(positions), 'image is', 'images are')} far {how} than the others",
            detail=f"{'Up' if how == 'larger' else 'Down'} to {_size(looks, positions[0])}, where the median is "
            f"{median[0]}x{median[1]} px; {_by_class(looks, positions, namer)}.",
            advice=advice[how],
            share=namer.share(len(positions)),
            samples=tuple((namer.sample(int(position), _size(looks, position)),) for position in positions),
        )
    ]


def _aspects(looks: Looks, namer: Namer) -> list[Finding]:
    ratio = looks.sizes[:, 1] / looks.sizes[:, 0]
    typical = float(np.median(ratio))
    oddness = np.abs(np.log(ratio / typical))
    positions = np.flatnonzero(oddness > np.log(_ODD_ASPECT))
    if not len(positions):
        return []
    positions = positions[np.argsort(-oddness[positions], kind="stable")]
    return [
        Finding(
            kind="odd-aspect",
            severity="note",
            title=f"{counted(len(positions), 'image is', 'images are')} much wider or higher than the others",
            detail=f"The oddest is {_size(looks, positions[0])}, where width by height is {typical:.2f} in the median.",
            advice="See whether their middle is enough; else train with `--data.fit pad`.",
            share=namer.share(len(positions)),
            samples=tuple((namer.sample(int(position), _size(looks, position)),) for position in positions),
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
            title = f"{counted(len(labels), 'class has', 'classes have')} {many}"
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


def _size(looks: Looks, position: int | np.int64) -> str:
    height, width = looks.sizes[position]
    return f"{height}x{width} px"


def _by_class(looks: Looks, positions: NDArray[np.int64], namer: Namer) -> str:
    """`in 'cat' (3) and 'dog' (1)`."""
    counts = Counter(looks.labels[positions].tolist()).most_common()
    return "in " + listed([f"{namer.source.classes[label]!r} ({count:,})" for label, count in counts])
