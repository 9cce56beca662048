"""Survey -> Examination: decode every image once, count what is there and find what is wrong."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.depth import Scale
from vitreous.data.doctor.copies import copy_findings, group_copies, join_copies
from vitreous.data.doctor.diagnose import class_findings, label_findings, source_findings
from vitreous.data.doctor.findings import Finding, Namer, ranked
from vitreous.data.doctor.misfits import file_findings
from vitreous.data.doctor.mislabeled import LEAST_ACCURACY, LabelDoubts, find_doubtful_labels, thumbnail_features
from vitreous.data.doctor.outliers import outlier_findings
from vitreous.data.doctor.summaries import ImageSummaries, summarize_source, summarize_stores
from vitreous.data.label_sets import having, join_labels
from vitreous.data.pixels.store import LazyStore, Store
from vitreous.data.sources import SPLITS, Source
from vitreous.data.survey.facts import Survey
from vitreous.errors import DataError
from vitreous.wording import plural

MOST_AT_START = 10_000
"""Number of images above which the check before training is skipped: it would take more than ten seconds."""
MOST_BYTES_AT_START = 1_000_000_000
"""Decoded size in bytes above which that check is skipped, for the same reason."""
MOST_SENTENCES = 5
"""Maximum number of findings that are reported before training."""

_AT_START = frozenset({"copies-across-splits", "copies-across-classes", "near-copies", "constant", "drift"})
_OF_CLASSES = frozenset({"few-images", "uneven-classes", "doubtful-labels"})
"""Findings that do not apply to sets of labels, most of which have few images."""
_ASPECTS = (0.25, 1 / 3, 0.5, 2 / 3, 0.8, 1.25, 1.5, 2.0, 3.0, 4.0)
_SIDES_PX = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

Show = Callable[[str, int, int], None]
"""Shows progress; called as `show(stage, done, total)`."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the images, by which their labels are judged and outliers found.

    Attributes:
        values: `[images, any]`.
        indices: Index in the source of each row, `[images]`.
        basis: What the features are, e.g. `the features of runs/photos-1`; or what gives the probabilities.
        are_probabilities: They are probabilities of the classes, which judge labels but find no outliers.
    """

    values: NDArray[Any]
    indices: NDArray[np.int64]
    basis: str
    are_probabilities: bool = False

    @property
    def judge(self) -> str:
        """What judges labels by them."""
        return self.basis if self.are_probabilities else f"a cross-validated regression on {self.basis}"


@dataclass(frozen=True, eq=False)
class Examination:
    """Everything the doctor found in a data set.

    Findings come worst first, numbers are plain values for JSON, and the doubts have positions in the summaries.
    """

    source: Source
    summaries: ImageSummaries
    findings: tuple[Finding, ...]
    numbers: dict[str, Any]
    doubts: LabelDoubts

    def as_dict(self) -> dict[str, Any]:
        """Return numbers and findings as plain values for JSON."""
        return {**self.numbers, "findings": [asdict(finding) for finding in self.findings]}


def examine(surveyed: Survey, *, features: Features | None = None, show: Show = lambda *_: None) -> Examination:
    """Decode every image once and find what is wrong with the data set.

    Features of a model find outliers. They judge labels too, unless edges and colors of thumbnails classify the images
    more accurately. Images that cannot be decoded are a finding, not an error.
    Raises DataError if none can be decoded.
    """
    source = by_label_sets(surveyed.source)
    scale = Scale(surveyed.facts.value_range)
    summaries = summarize_source(source, surveyed.indices, partial(show, "decoding"), scale)
    if not len(summaries):
        first, reason = summaries.unreadable[0]
        raise DataError(
            f"data.source={source.name}: none of its {plural(len(source), 'image')} can be decoded "
            f"(first: {source.describe(first)}: {reason}); replace them"
        )
    namer = Namer(source, summaries)
    several = surveyed.source.is_multilabel
    thumbnails = Features(thumbnail_features(summaries.gray, summaries.color), summaries.indices, "thumbnails")
    bases = [features] if features is not None and features.are_probabilities else [thumbnails, features]
    copies = group_copies(summaries, partial(show, "comparing"), crops=True)
    families = join_copies(surveyed.families(summaries.indices), copies)
    judged = [(_judged(basis, summaries, families, show, several=several), basis) for basis in bases if basis]
    # Features of a model suit some data and not others: on sign-digits, thumbnails find more wrong labels.
    doubts, used = max(judged, key=lambda found: np.nan_to_num(found[0].accuracy))
    findings = [
        *source_findings(surveyed),
        *copy_findings(copies, namer),
        *file_findings(summaries, namer),
        *class_findings(summaries, namer),
        *label_findings(doubts, used.judge, namer),
    ]
    if features is not None and not features.are_probabilities:
        findings += outlier_findings(*_rows(features, summaries), features.basis, namer)
    if several:
        findings = [finding for finding in findings if finding.kind not in _OF_CLASSES]
    numbers = {**_numbers(surveyed.source, summaries), "labels": _labels(doubts, used, surveyed)}
    return Examination(source, summaries, ranked(findings), numbers, doubts)


def _rows(features: Features, summaries: ImageSummaries) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the features of the images that have a summary, and the position of each row in the summaries."""
    readable = np.isin(features.indices, summaries.indices)
    return features.values[readable], np.searchsorted(summaries.indices, features.indices[readable])


def _judged(
    features: Features, summaries: ImageSummaries, families: NDArray[np.int64], show: Show, *, several: bool
) -> LabelDoubts:
    """Return the doubtful labels, with positions in the summaries; families are those of the summaries."""
    values, positions = _rows(features, summaries)
    rows = slice(0 if several else None)  # sets of labels are not judged
    labels, progress = summaries.labels[positions[rows]], partial(show, "judging labels")
    if features.are_probabilities:
        doubts = find_doubtful_labels(values[rows], labels, are_probabilities=True)
    else:
        doubts = find_doubtful_labels(values[rows], labels, families[positions[rows]], progress)
    return replace(doubts, positions=positions[doubts.positions])


def by_label_sets(source: Source) -> Source:
    """Return a source in which each distinct set of labels is a class, e.g. `cat;dog`; one label per image stays."""
    if not source.is_multilabel:
        return source
    sets, numbers = np.unique(source.labels, axis=0, return_inverse=True)
    view = copy.copy(source)
    view.classes = tuple(join_labels(source.classes[n] for n in np.flatnonzero(row)) or "no label" for row in sets)
    view.labels = numbers.reshape(-1)
    return view


def brief(surveyed: Survey, stores: Mapping[str, Store]) -> tuple[str, ...]:
    """Report the worst findings before training, from images that are already decoded.

    Exact copies and small classes are in the notes of the survey, so only findings that need decoded images are added.
    The check takes about a second for 2,000 images of 64 px on two cores. It finds less than `examine`, because the
    stored images are already cropped to one size.

    Returns:
        One sentence per finding, worst first, at most `MOST_SENTENCES`, and a last sentence that says how to see more.
        If the check would take too long (more than `MOST_AT_START` images or `MOST_BYTES_AT_START` bytes, or a
        `LazyStore`, which decodes each image again), one sentence says that it was skipped.
    """
    count = sum(map(len, stores.values()))
    if not count:
        return ()
    if count > MOST_AT_START or _num_bytes(stores) > MOST_BYTES_AT_START:
        return (f"{plural(count, 'image')} were not checked for copies, which would delay training; "
                "use `vitreous inspect` for that",)  # fmt: skip
    source, summaries = by_label_sets(surveyed.source), summarize_stores(stores)
    summaries = replace(summaries, labels=source.labels[summaries.indices])
    namer = Namer(source, summaries)
    findings = [
        *copy_findings(group_copies(summaries), namer),
        *file_findings(summaries, namer),
        *class_findings(summaries, namer),
    ]
    chosen = [finding for finding in ranked(findings) if finding.kind in _AT_START]
    reported = [finding.sentence for finding in chosen[:MOST_SENTENCES]]
    return (*reported, "`vitreous inspect` lists these images, and with --html FILE shows them") if reported else ()


def _num_bytes(stores: Mapping[str, Store]) -> float:
    """Return the decoded size of all images in bytes; infinity unless they are in memory."""
    if any(isinstance(store, LazyStore) for store in stores.values()):
        return float("inf")
    return sum(len(store) * store.take(np.zeros(1, dtype=np.int64)).numel() for store in stores.values() if len(store))


def _numbers(source: Source, summaries: ImageSummaries) -> dict[str, Any]:
    shorter_side = summaries.sizes.min(axis=1, initial=1 << 30)
    aspect = summaries.sizes[:, 1] / summaries.sizes[:, 0]
    num_gray, labels = int(summaries.without_color.sum()), source.labels[summaries.indices]
    colors = {"images with color": len(summaries) - num_gray, "images without color": num_gray}
    return {
        "num_images": len(summaries),
        "num_unreadable": len(summaries.unreadable),
        "class_images": {
            name: {split: int((having(labels, label) & (summaries.splits == split)).sum()) for split in SPLITS}
            for label, name in enumerate(source.classes)
        },
        "shorter_side_px": _histogram(shorter_side, _SIDES_PX, "px"),
        "width_by_height": _histogram(aspect, _ASPECTS, ""),
        "sizes": dict(Counter(f"{height}x{width}" for height, width in summaries.sizes.tolist()).most_common(20)),
        "kinds": dict(Counter(summaries.kinds.tolist()).most_common()),
        "color": {} if summaries.has_bands else colors,
        "brightness": _histogram(summaries.means.mean(axis=1), tuple(range(32, 256, 32)), ""),
        "channels": {split: _channels(summaries, split) for split in SPLITS if (summaries.splits == split).any()},
    }


def _channels(summaries: ImageSummaries, split: str) -> dict[str, list[float]]:
    """Return the channel means and standard deviations in 0..255, averaged over the images of a split."""
    inside = summaries.splits == split
    return {name: [round(float(value), 2) for value in values[inside].mean(axis=0)]
            for name, values in (("mean", summaries.means), ("std", summaries.stds))}  # fmt: skip


def _histogram(values: NDArray[Any], edges: tuple[float, ...], unit: str) -> dict[str, int]:
    """Count values between edges; an edge belongs to the bin above it, and empty bins at either end are left out."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    texts = [f"{edge:g}" if edge == round(edge) else f"{edge:.2f}" for edge in edges]
    names = [f"below {texts[0]}", *(f"{low} to {high}" for low, high in pairwise(texts)),
             f"{texts[-1]} and more"]  # fmt: skip
    filled = np.flatnonzero(counts)
    bins = range(filled[0], filled[-1] + 1) if len(filled) else range(0)
    return {f"{names[i]} {unit}".strip(): int(counts[i]) for i in bins}


def _labels(doubts: LabelDoubts, used: Features, surveyed: Survey) -> dict[str, Any]:
    if surveyed.source.is_multilabel:
        verdict = "not judged: images have several labels"
    elif np.isnan(doubts.accuracy):
        verdict = f"not judged: too few {'images' if surveyed.source.groups is None else 'groups'} in each class"
    elif doubts.is_reliable and not doubts.num_judged:
        verdict = f"not judged: {used.judge} recognizes no class better than by its frequency"
    elif doubts.is_reliable:
        verdict = f"{len(doubts.positions):,} of {doubts.num_judged:,} doubtful, by {used.judge}"
    else:
        verdict = (
            f"not judged: {used.judge} classifies only {doubts.accuracy:.0%} of the images correctly "
            f"(at least {LEAST_ACCURACY:.0%} required)"
        )
    accuracy = None if np.isnan(doubts.accuracy) else round(doubts.accuracy, 4)
    return {"basis": used.basis, "accuracy": accuracy, "num_judged": doubts.num_judged, "verdict": verdict}
