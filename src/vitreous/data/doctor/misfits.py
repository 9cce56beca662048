"""Looks -> findings about files that stand out: unreadable, showing nothing, of odd size or shape."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.decode import SEVERAL
from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.summaries import Looks
from vitreous.wording import listed, plural

_NOTHING_TO_SEE = 2.0
"""Grey levels of standard deviation: below it an image is of one colour or nearly."""
_ONE_COLOUR = 1e-3
"""Grey levels: one pixel of a million that differs by one gives as much."""
_FAR_LARGER, _FAR_SMALLER = 4.0, 0.25
"""Of the median side."""
_ODD_ASPECT = 2.0
"""Times the median aspect ratio, either way."""


def file_findings(looks: Looks, namer: Namer) -> list[Finding]:
    """Unreadable files, images that show nothing, files of several pictures, odd sizes and shapes."""
    found = (_unreadable, _constant, _several, _sizes, _aspects)
    return [finding for find in found for finding in find(looks, namer)]


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
            title=f"{plural(count, 'file does', 'files do')} not decode",
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
            title=f"{plural(len(found), 'image shows', 'images show')} nothing",
            detail=f"{exactly:,} of one colour, {len(found) - exactly:,} nearly so; {_by_class(looks, found, namer)}.",
            advice="Remove them, unless emptiness is what their class means.",
            share=namer.share(len(found)),
            samples=namer.singles(found),
        )
    ]


def _several(looks: Looks, namer: Namer) -> list[Finding]:
    found = np.flatnonzero(np.char.endswith(looks.kinds, SEVERAL))
    if not len(found):
        return []
    return [
        Finding(
            kind="several-pictures",
            severity="note",
            title=f"{plural(len(found), 'file holds', 'files hold')} several pictures",
            detail="Animations and pages: only the first picture of each is used.",
            advice="Save the others as files of their own, where they are worth it.",
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
            title=f"{plural(len(positions), 'image is', 'images are')} far {how} than the others",
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
            title=f"{plural(len(positions), 'image is', 'images are')} much wider or higher than the others",
            detail=f"The oddest is {_size(looks, positions[0])}, where width by height is {typical:.2f} in the median.",
            advice="See whether their middle is enough; else train with `--data.fit pad`.",
            share=namer.share(len(positions)),
            samples=tuple((namer.sample(int(position), _size(looks, position)),) for position in positions),
        )
    ]


def _size(looks: Looks, position: int | np.int64) -> str:
    height, width = looks.sizes[position]
    return f"{height}x{width} px"


def _by_class(looks: Looks, positions: NDArray[np.int64], namer: Namer) -> str:
    """`in 'cat' (3) and 'dog' (1)`."""
    counts = Counter(looks.labels[positions].tolist()).most_common()
    return "in " + listed([f"{namer.source.classes[label]!r} ({count:,})" for label, count in counts])
