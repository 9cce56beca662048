"""ImageSummaries -> findings about unusual files: unreadable or blank, several pictures, unusual size or shape."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.decode import SEVERAL
from vitreous.data.doctor.findings import Finding, Namer
from vitreous.data.doctor.summaries import ImageSummaries
from vitreous.wording import listed, plural

_BLANK = 2.0
"""Standard deviation in gray levels below which an image is blank: one color or almost one."""
_ONE_COLOR = 1e-3
"""Standard deviation in gray levels below which every pixel is equal; one pixel in a million that differs by one level
already reaches it."""
_FAR_LARGER, _FAR_SMALLER = 4.0, 0.25
"""Limits of the side length, as multiples of the median side length."""
_UNUSUAL_ASPECT = 2.0
"""Limit of the aspect ratio, as a multiple or fraction of the median aspect ratio."""


def file_findings(summaries: ImageSummaries, namer: Namer) -> list[Finding]:
    """Report unreadable and blank files, files with several pictures, and unusual sizes and shapes."""
    checks = (_unreadable, _blank, _several, _larger, _smaller, _aspects)
    findings = [check(summaries, namer) for check in checks]
    return [finding for finding in findings if finding is not None]


def _unreadable(summaries: ImageSummaries, namer: Namer) -> Finding | None:
    if not summaries.unreadable:
        return None
    count = len(summaries.unreadable)
    reasons = Counter(reason for _, reason in summaries.unreadable).most_common()
    named = listed([f"{reason} ({number:,})" if number > 1 else reason for reason, number in reasons], 3)
    return Finding(
        kind="unreadable",
        severity="warning",
        title=f"{plural(count, 'file')} cannot be decoded",
        detail=f"Training skips {'it' if count == 1 else 'them'}: {named}.",
        advice=f"Replace or delete {'this file' if count == 1 else 'these files'}.",
        share=namer.share(count),
        samples=namer.unreadable(),
    )


def _blank(summaries: ImageSummaries, namer: Namer) -> Finding | None:
    found = np.flatnonzero(summaries.stds.max(axis=1, initial=0.0) < _BLANK)
    if not len(found):
        return None
    num_uniform = int((summaries.stds[found].max(axis=1) < _ONE_COLOR).sum())
    return Finding(
        kind="constant",
        severity="warning",
        title=f"{plural(len(found), 'image is', 'images are')} blank",
        detail=f"{num_uniform:,} with a single color and {len(found) - num_uniform:,} with almost one, "
        f"{_by_class(summaries, found, namer)}.",
        advice="Remove them, unless a blank image is a valid example of its class.",
        share=namer.share(len(found)),
        samples=namer.singles(found),
    )


def _several(summaries: ImageSummaries, namer: Namer) -> Finding | None:
    found = np.flatnonzero(np.char.endswith(summaries.kinds, SEVERAL))
    if not len(found):
        return None
    return Finding(
        kind="several-pictures",
        severity="note",
        title=f"{plural(len(found), 'file contains', 'files contain')} several pictures",
        detail="Only the first frame of an animation or the first page of a document is used.",
        advice="If the other pictures are useful, save each as a separate file.",
        share=namer.share(len(found)),
        samples=namer.singles(found),
    )


def _larger(summaries: ImageSummaries, namer: Namer) -> Finding | None:
    side = np.sqrt(summaries.sizes.prod(axis=1))
    found = np.flatnonzero(side >= _FAR_LARGER * float(np.median(side)))
    return _unusual_size("larger", found[np.argsort(-side[found], kind="stable")], summaries, namer)


def _smaller(summaries: ImageSummaries, namer: Namer) -> Finding | None:
    side = np.sqrt(summaries.sizes.prod(axis=1))
    found = np.flatnonzero(side <= _FAR_SMALLER * float(np.median(side)))
    return _unusual_size("smaller", found[np.argsort(side[found], kind="stable")], summaries, namer)


def _unusual_size(how: str, positions: NDArray[np.int64], summaries: ImageSummaries, namer: Namer) -> Finding | None:
    """Report images that are far `larger` or `smaller` than the others; the most extreme one comes first."""
    if not len(positions):
        return None
    height, width = np.median(summaries.sizes, axis=0).round().astype(int)
    extreme = {"larger": "largest", "smaller": "smallest"}[how]
    advice = {
        "larger": "Downscale them unless the size is intended: they are slow to read and may come from another camera.",
        "smaller": "Replace them with larger versions or remove them: enlarged, they show little detail.",
    }
    return Finding(
        kind=f"far-{how}",
        severity="note",
        title=f"{plural(len(positions), 'image is', 'images are')} far {how} than the others",
        detail=f"The {extreme} is {_size(summaries, positions[0])} and the median is {height}x{width} px "
        f"(height x width); {_by_class(summaries, positions, namer)}.",
        advice=advice[how],
        share=namer.share(len(positions)),
        samples=tuple((namer.sample(int(position), _size(summaries, position)),) for position in positions),
    )


def _aspects(summaries: ImageSummaries, namer: Namer) -> Finding | None:
    ratio = summaries.sizes[:, 1] / summaries.sizes[:, 0]
    median = float(np.median(ratio))
    deviation = np.abs(np.log(ratio / median))
    positions = np.flatnonzero(deviation > np.log(_UNUSUAL_ASPECT))
    if not len(positions):
        return None
    positions = positions[np.argsort(-deviation[positions], kind="stable")]
    return Finding(
        kind="odd-aspect",
        severity="note",
        title=f"{plural(len(positions), 'image is', 'images are')} much wider or taller than the others",
        detail=f"The most extreme is {_size(summaries, positions[0])} (height x width); the median of width / "
        f"height is {median:.2f}.",
        advice="Training crops to the center by default; if that cuts off what matters, use `--data.fit pad`.",
        share=namer.share(len(positions)),
        samples=tuple((namer.sample(int(position), _size(summaries, position)),) for position in positions),
    )


def _size(summaries: ImageSummaries, position: int | np.int64) -> str:
    height, width = summaries.sizes[position]
    return f"{height}x{width} px"


def _by_class(summaries: ImageSummaries, positions: NDArray[np.int64], namer: Namer) -> str:
    """Count images per class: `in 'cat' (3) and 'dog' (1)`."""
    counts = Counter(summaries.labels[positions].tolist()).most_common()
    return "in " + listed([f"{namer.source.classes[label]!r} ({count:,})" for label, count in counts])
