"""Survey -> Examination: one pass over the decoded images, what they are in numbers, and what is wrong with them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.copies import copy_findings, group_copies
from vitreous.data.doctor.diagnose import class_findings, label_finding, source_findings
from vitreous.data.doctor.findings import Finding, Namer, ranked
from vitreous.data.doctor.misfits import file_findings
from vitreous.data.doctor.mislabeled import LEAST_ACCURACY, Doubts, describe_for_labels, find_doubts
from vitreous.data.doctor.summaries import Looks, look_at_source, look_at_stores
from vitreous.data.pixels.store import LazyStore, Store
from vitreous.data.sources import Source
from vitreous.data.survey.facts import Survey
from vitreous.errors import DataError

MOST_AT_START = 10_000
"""More images than this are not examined at the start of a run: it would take more than ten seconds of it."""
MOST_BYTES_AT_START = 1_000_000_000
"""Nor are more decoded bytes, for the same reason."""
MOST_SENTENCES = 5

_AT_START = frozenset({"copies-across-splits", "copies-across-classes", "near-copies", "constant", "drift"})
_ASPECTS = (0.25, 1 / 3, 0.5, 2 / 3, 0.8, 1.25, 1.5, 2.0, 3.0, 4.0)
_SIDES_PX = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


Show = Callable[[str, int, int], None]
"""Called as `show(what, done, total)`."""


def _silent(what: str, done: int, total: int) -> None:
    """For those who do not look."""


@dataclass(frozen=True, eq=False)
class Features:
    """What labels are compared with.

    Attributes:
        values: `[images, any]`.
        indices: Which sample of the source each row is, `[images]`.
        basis: What they are, e.g. `the features of runs/photos-1`.
    """

    values: NDArray[np.float32]
    indices: NDArray[np.int64]
    basis: str


@dataclass(frozen=True, eq=False)
class Examination:
    """What the doctor found.

    Attributes:
        source: What was examined.
        looks: What was kept of each image.
        findings: Worst first.
        numbers: Counts and histograms, as plain values for JSON.
    """

    source: Source
    looks: Looks
    findings: tuple[Finding, ...]
    numbers: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, for JSON."""
        return {**self.numbers, "findings": [asdict(finding) for finding in self.findings]}


def examine(surveyed: Survey, *, features: Features | None = None, show: Show = _silent) -> Examination:
    """Decode every image once and say what is wrong with the set.

    Args:
        surveyed: The source with its splits.
        features: What doubts about labels rest on; None: edges and colours of thumbnails.
        show: Told what goes on, and how many images of how many are done.

    Returns:
        The examination. Images that do not decode are a finding, not an error.

    Raises:
        DataError: None decodes.
    """
    source = surveyed.source
    looks = look_at_source(source, surveyed.indices, partial(show, "decoding"))
    if not len(looks):
        first, reason = looks.unreadable[0]
        raise DataError(
            f"data.source={source.name}: none of {len(source)} images decodes (the first, {source.describe(first)}: "
            f"{reason}); check them"
        )
    namer = Namer(source, looks)
    if features is None:
        features = Features(describe_for_labels(looks.gray, looks.colour), looks.indices, "thumbnails")
    seen = np.isin(features.indices, looks.indices)
    positions = np.searchsorted(looks.indices, features.indices[seen])
    doubts = find_doubts(features.values[seen], looks.labels[positions], partial(show, "judging labels"))
    placed = Doubts(doubts.accuracy, doubts.num_judged, positions[doubts.positions], doubts.looks_like,
                    doubts.probability)  # fmt: skip
    findings = [
        *source_findings(surveyed),
        *copy_findings(looks, group_copies(looks, partial(show, "comparing")), namer),
        *file_findings(looks, namer),
        *class_findings(looks, namer),
        *label_finding(placed, features.basis, namer),
    ]
    numbers = {**_numbers(source, looks), "labels": _labels(doubts, features.basis)}
    return Examination(source, looks, ranked(findings), numbers)


def brief(surveyed: Survey, stores: Mapping[str, Store]) -> tuple[str, ...]:
    """What the owner should hear before training: the worst findings, from images that are decoded already.

    Exact copies and small classes are in the survey's own notes; this adds what only decoded images show. Takes about
    a second for 2,000 images of 64 px on two cores. Images cut to one size show less than whole files do.

    Args:
        surveyed: The source of the stores.
        stores: Decoded images by split.

    Returns:
        At most `MOST_SENTENCES` findings in a line each, worst first, and where to see more of them; where there are
        too many images to look at (`MOST_AT_START`, `MOST_BYTES_AT_START`, or a LazyStore, which would decode each
        again) a sentence says so.
    """
    count = sum(map(len, stores.values()))
    if not count:
        return ()
    if count > MOST_AT_START or _num_bytes(stores) > MOST_BYTES_AT_START:
        return (f"{count:,} images are too many to look for copies at the start of a run; `vitreous inspect` does",)
    looks = look_at_stores(stores)
    namer = Namer(surveyed.source, looks)
    found = [*copy_findings(looks, group_copies(looks), namer), *file_findings(looks, namer),
             *class_findings(looks, namer)]  # fmt: skip
    chosen = [finding for finding in ranked(found) if finding.kind in _AT_START]
    told = [finding.sentence for finding in chosen[:MOST_SENTENCES]]
    return (*told, "`vitreous inspect` names these images, and with --html FILE shows them") if told else ()


def _num_bytes(stores: Mapping[str, Store]) -> float:
    """Of all pixels."""
    if any(isinstance(store, LazyStore) for store in stores.values()):
        return float("inf")
    return sum(len(store) * store.take(np.zeros(1, dtype=np.int64)).numel() for store in stores.values() if len(store))


def _numbers(source: Source, looks: Looks) -> dict[str, Any]:
    sides, aspect = looks.sizes.min(axis=1, initial=1 << 30), looks.sizes[:, 1] / looks.sizes[:, 0]
    splits = ("train", "val", "test")
    return {
        "num_images": len(looks),
        "num_unreadable": len(looks.unreadable),
        "class_images": {
            name: {split: int(((looks.labels == label) & (looks.splits == split)).sum()) for split in splits}
            for label, name in enumerate(source.classes)
        },
        "shorter_side_px": _histogram(sides, _SIDES_PX, "px"),
        "width_by_height": _histogram(aspect, _ASPECTS, ""),
        "sizes": dict(Counter(f"{height}x{width}" for height, width in looks.sizes.tolist()).most_common(20)),
        "kinds": dict(Counter(looks.kinds.tolist()).most_common()),
        "colour": {"images with colour": int((~looks.without_colour).sum()),
                   "images without colour": int(looks.without_colour.sum())},
        "brightness": _histogram(looks.means.mean(axis=1), tuple(range(32, 256, 32)), ""),
        "channels": {split: _channels(looks, split) for split in splits if (looks.splits == split).any()},
    }  # fmt: skip


def _channels(looks: Looks, split: str) -> dict[str, list[float]]:
    """Mean over images of their channel means and standard deviations, in 0..255."""
    inside = looks.splits == split
    return {name: [round(float(value), 2) for value in values[inside].mean(axis=0)]
            for name, values in (("mean", looks.means), ("std", looks.stds))}  # fmt: skip


def _histogram(values: NDArray[Any], edges: tuple[float, ...], unit: str) -> dict[str, int]:
    """Counts between edges, without the empty ends."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    texts = [f"{edge:g}" if edge == round(edge) else f"{edge:.2f}" for edge in edges]
    names = [f"below {texts[0]}", *(f"{low} to {high}" for low, high in pairwise(texts)),
             f"{texts[-1]} and more"]  # fmt: skip
    filled = np.flatnonzero(counts)
    inside = range(filled[0], filled[-1] + 1) if len(filled) else range(0)
    return {f"{names[place]} {unit}".strip(): int(counts[place]) for place in inside}


def _labels(doubts: Doubts, basis: str) -> dict[str, Any]:
    if not doubts.num_judged:
        verdict = "not judged: too few images of each class"
    elif doubts.can_tell:
        verdict = (
            f"{len(doubts.positions):,} of {doubts.num_judged:,} in doubt by a cross-validated regression on {basis}"
        )
    else:
        verdict = (
            f"not judged: a regression on {basis} is right on {doubts.accuracy:.0%} only, "
            f"{LEAST_ACCURACY:.0%} are needed"
        )
    accuracy = None if np.isnan(doubts.accuracy) else round(doubts.accuracy, 4)
    return {"basis": basis, "accuracy": accuracy, "num_judged": doubts.num_judged, "verdict": verdict}
