"""ImageSummaries -> findings about unusual files: unreadable or blank, several pictures, unusual size or shape."""

from collections import Counter
from collections.abc import Iterator

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
    checks = (_unreadable, _blank, _several, _sizes, _aspects)
    return [finding for check in checks for finding in check(summaries, namer)]


def _unreadable(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    if not summaries.unreadable:
        return
    count = len(summaries.unreadable)
    reasons = Counter(reason for _, reason in summaries.unreadable).most_common()
    named = listed([f"{reason} ({number:,})" if number > 1 else reason for reason, number in reasons], 3)
    yield Finding(
        kind="unreadable",
        severity="warning",
        title=f"{plural(count, 'file')} cannot be decoded",
        detail=f"Training skips {'it' if count == 1 else 'them'}: {named}.",
        advice=f"Replace or delete {'this file' if count == 1 else 'these files'}.",
        share=namer.share(count),
        samples=namer.unreadable(),
    )


def _blank(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    found = np.flatnonzero(summaries.stds.max(axis=1, initial=0.0) < _BLANK)
    if not len(found):
        return
    num_uniform = int((summaries.stds[found].max(axis=1) < _ONE_COLOR).sum())
    yield Finding(
        kind="constant",
        severity="warning",
        title=f"{plural(len(found), 'image is', 'images are')} blank",
        detail=f"{num_uniform:,} with a single color and {len(found) - num_uniform:,} with almost one, "
        f"{_by_class(summaries, found, namer)}.",
        advice="Remove them, unless a blank image is a valid example of its class.",
        share=namer.share(len(found)),
        samples=namer.singles(found),
    )


def _several(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    found = np.flatnonzero(np.char.endswith(summaries.kinds, SEVERAL))
    if len(found):
        yield Finding(
            kind="several-pictures",
            severity="note",
            title=f"{plural(len(found), 'file contains', 'files contain')} several pictures",
            detail="Only the first frame of an animation or the first page of a document is used.",
            advice="If the other pictures are useful, save each as a separate file.",
            share=namer.share(len(found)),
            samples=namer.singles(found),
        )


def _sizes(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    """Report images that are far larger, and those that are far smaller than the others, the most extreme one first."""
    side = np.sqrt(summaries.sizes.prod(axis=1))
    smallest, largest = np.argsort(side, kind="stable"), np.argsort(-side, kind="stable")
    for how, extreme, positions, advice in (
        ("larger", "largest", largest[side[largest] >= _FAR_LARGER * np.median(side)],
         "Downscale them unless the size is intended: they are slow to read and may come from another camera."),
        ("smaller", "smallest", smallest[side[smallest] <= _FAR_SMALLER * np.median(side)],
         "Replace them with larger versions or remove them: enlarged, they show little detail."),
    ):  # fmt: skip
        if len(positions):
            height, width = np.median(summaries.sizes, axis=0).round().astype(int)
            yield Finding(
                kind=f"far-{how}",
                severity="note",
                title=f"{plural(len(positions), 'image is', 'images are')} far {how} than the others",
                detail=f"The {extreme} is {_size(summaries, positions[0])} and the median is {height}x{width} px "
                f"(height x width); {_by_class(summaries, positions, namer)}.",
                advice=advice,
                share=namer.share(len(positions)),
                samples=tuple((namer.sample(int(position), _size(summaries, position)),) for position in positions),
            )


def _aspects(summaries: ImageSummaries, namer: Namer) -> Iterator[Finding]:
    ratio = summaries.sizes[:, 1] / summaries.sizes[:, 0]
    median = float(np.median(ratio))
    deviation = np.abs(np.log(ratio / median))
    positions = np.flatnonzero(deviation > np.log(_UNUSUAL_ASPECT))
    positions = positions[np.argsort(-deviation[positions], kind="stable")]
    if len(positions):
        yield Finding(
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
