"""Source -> Survey: read every file once, find copies, assign splits, and collect facts for the recipes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.depth import ValueRange
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.label_sets import LabelArray, count_labels, label_texts, present, set_numbers
from vitreous.data.pixels.digest import DIGEST_BYTES
from vitreous.data.sources import SPLITS, Source, Texts
from vitreous.data.sources.source import titled
from vitreous.data.survey.folds import split_by_fold
from vitreous.data.survey.headers import Headers, read_headers
from vitreous.data.survey.mirror import PROBE_IMAGES, PROBE_SIDE_PX, Mirror, judge_by_images, judge_by_names
from vitreous.data.survey.notes import survey_notes
from vitreous.data.survey.splits import Samples, assign_splits, find_families
from vitreous.data.survey.value_range import measure_value_range
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DataError, DecodeError
from vitreous.seeding import derive, permutation
from vitreous.wording import plural

DEFAULT_TEST_RATIO = 0.2
FEW_IMAGES = 1_000
"""With fewer images, a validation split that comes with the data reports the accuracy, and no test is held out."""

# The mirror probe decodes at most about this many pixels: 2,000 small images, or 200 of 12 megapixels.
_PROBE_PIXELS = 400_000_000
_FEWEST_PROBED = 200


@dataclass(frozen=True)
class DataFacts:
    """What is known about a data set before training.

    Attributes:
        name: Name of the source.
        classes: The class names.
        num_train: Number of training images.
        num_val: Number of validation images.
        num_test: Number of test images.
        class_counts: Number of training images of each class.
        in_chans: 1 if all images are gray, 3 for color, or the number of channels of other images.
        height_px: Median height.
        width_px: Median width.
        min_size_px: Smallest height and smallest width.
        max_size_px: Largest height and largest width.
        skipped: Unreadable files that were left out: (which, why).
        notes: Warnings, one sentence each.
        mirror: True if a mirrored image keeps its class.
        mirror_reason: Reason for the value of `mirror`.
        mirror_looks_usual: True if mirrored images look like the others.
        test_ratio: Share of the images to hold out if the source has no test split; with K folds 1/K.
        fingerprint: A hash of all contents, labels, splits and corrections; not of file names or their order.
        brings_test: True if the source has a test split.
        brings_val: True if the source has a validation split.
        value_range: Values that become black and white in images of more than 8 bits; empty if there are none.
        value_range_reason: How the range was found.
        task: `multilabel` if an image may have several labels, `unlabeled` if it has none, else `single`.
        task_reason: Why the source is read so, one clause; empty if there was no choice.
        format: The format of the labeling tool that exported the source; empty for other sources.
    """

    name: str
    classes: tuple[str, ...]
    num_train: int
    num_val: int
    num_test: int
    class_counts: tuple[int, ...]
    in_chans: int
    height_px: int
    width_px: int
    min_size_px: tuple[int, int]
    max_size_px: tuple[int, int]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    mirror: bool
    mirror_reason: str
    test_ratio: float
    fingerprint: str
    brings_test: bool = False
    brings_val: bool = False
    value_range: ValueRange = ()
    value_range_reason: str = ""
    task: str = "single"
    task_reason: str = ""
    format: str = ""
    mirror_looks_usual: bool = False

    @property
    def title(self) -> str:
        """The name, with the format where it was recognized by content."""
        return titled(self.name, self.format)

    @property
    def num_tested(self) -> int:
        """Number of images that report the accuracy: those for testing, or for validation if there are none."""
        return self.num_test or self.num_val

    @property
    def reports_on_val(self) -> bool:
        """True if the accuracy is reported on the validation split of a small source, because nothing is tested."""
        return self.brings_val and not self.num_test and self.num_train + self.num_val < FEW_IMAGES


@dataclass(frozen=True, eq=False)
class Survey:
    """A source, the sorted sample numbers of `train`, `val` and `test`, facts, and `[n, 16]` content hashes."""

    source: Source
    indices: dict[str, NDArray[np.int64]]
    facts: DataFacts
    digests: NDArray[np.uint8]

    def families(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a number for each of these samples, `[n]`, equal for those that splits keep together."""
        return find_families(_samples(self.source, self.digests, indices)).of_sample


def survey(
    source: Source,
    *,
    test_ratio: float | None = None,
    val_ratio: float = 0.1,
    split_seed: int = 0,
    num_folds: int = 0,
    fold: int = 0,
    progress: Progress | None = None,
) -> Survey:
    """Read every sample once (hash and header), leave out unreadable ones, and assign the splits.

    Args:
        source: The samples.
        test_ratio: Share of the images to test on, in [0, 1); None: the source's own, else 0 if it has a validation
            split and fewer than `FEW_IMAGES` images, else `DEFAULT_TEST_RATIO`. Ignored with folds.
        val_ratio: Share of the other images to validate on, in [0, 1).
        split_seed: Another seed gives another split.
        num_folds: 0 for a single split; else the number of folds, one of which is the test split.
        fold: The fold to test on, from 0.
        progress: Called with (done, total).

    Raises:
        DataError: No readable image, fewer than two classes, no training image left, or too few images for the folds.
    """
    headers = read_headers(source, progress)
    skipped = tuple((source.describe(i), reason) for i, reason in headers.reasons.items())
    readable = np.flatnonzero(headers.numbers >= 0)
    samples = _samples(source, headers.digests, readable)
    _check_classes(source, samples.labels, skipped)

    usual = 0.0 if source.is_unlabeled else source.test_ratio
    test_ratio, folds = _test_ratio(usual, samples.given, test_ratio, num_folds), None
    if num_folds:
        splits, folds = split_by_fold(
            samples, num_folds=num_folds, fold=fold, val_ratio=val_ratio, split_seed=split_seed
        )
    else:
        splits = assign_splits(samples, test_ratio=test_ratio, val_ratio=val_ratio, split_seed=split_seed)
    indices = {split: readable[splits == split] for split in SPLITS}

    measured = _shapes(headers) | asdict(measure_value_range(source, headers))
    measured |= {f"num_{split}": len(indices[split]) for split in SPLITS}
    mirror = _judge_mirror(source, indices["train"], measured)
    facts = DataFacts(
        **_about(source),
        class_counts=tuple(count_labels(source.labels[indices["train"]], len(source.classes)).tolist()),
        **measured,
        skipped=skipped,
        notes=(*source.notes, *survey_notes(source.classes, samples, splits, folds, test_ratio)),
        mirror=mirror.keeps_class,
        mirror_reason=mirror.reason,
        mirror_looks_usual=mirror.looks_usual,
        test_ratio=test_ratio,
        fingerprint=_fingerprint(headers.digests[readable], samples.labels, splits, source.corrections),
        brings_test=bool((samples.given == "test").any()),
        brings_val=bool((samples.given == "val").any()),
    )
    return Survey(source=source, indices=indices, facts=facts, digests=headers.digests)


def _samples(source: Source, digests: NDArray[np.uint8], chosen: NDArray[np.int64]) -> Samples:
    """Return what the splits of some samples depend on. NumPy drops zero bytes at the end of their digests."""
    return Samples(
        digests=digests[chosen].view(f"S{DIGEST_BYTES}")[:, 0],
        labels=source.labels[chosen],
        given=source.splits[chosen],
        groups=None if source.groups is None else source.groups[chosen],
    )


def _check_classes(source: Source, labels: LabelArray, skipped: Sequence[tuple[str, str]]) -> None:
    """Raise DataError unless the readable images show at least two classes."""
    if len(labels) == 0:
        first = f" (the first, {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise DataError(
            f"data.source={source.name}: none of {plural(len(source), 'file')} is a readable image{first}; check them"
        )
    left = [source.classes[label] for label in present(labels)]
    if len(left) < 2 and not source.is_unlabeled:
        found = f"of only one class, {left[0]!r}" if left else "without labels only"
        raise DataError(
            f"data.source={source.name}: has readable images {found} "
            f"({len(skipped):,} of {plural(len(source), 'file')} unreadable); add images of another class"
        )


def _test_ratio(usual: float | None, given: Texts, requested: float | None, num_folds: int) -> float:
    if num_folds:
        return 1 / num_folds
    if requested is not None:
        return requested
    if usual is not None:
        return usual
    is_small = len(given) < FEW_IMAGES and "val" in given and "test" not in given
    return 0.0 if is_small else DEFAULT_TEST_RATIO


def _about(source: Source) -> dict[str, Any]:
    """Return the facts that the source gives without its images."""
    task = "unlabeled" if source.is_unlabeled else "multilabel" if source.is_multilabel else "single"
    return {"name": source.name, "classes": source.classes, "task": task, "task_reason": source.task_reason,
            "format": source.format}  # fmt: skip


def _shapes(headers: Headers) -> dict[str, Any]:
    """Return the facts about image sizes and channels."""
    sizes = np.array([(header.height, header.width) for header in headers.distinct])
    sizes = sizes[headers.numbers[headers.numbers >= 0]]
    used = [headers.distinct[number] for number in np.unique(headers.numbers[headers.numbers >= 0])]
    height_px, width_px = np.median(sizes, axis=0).round().astype(int).tolist()
    return {
        "in_chans": max(header.channels for header in used),
        "height_px": height_px,
        "width_px": width_px,
        "min_size_px": tuple(sizes.min(axis=0).tolist()),
        "max_size_px": tuple(sizes.max(axis=0).tolist()),
    }


def _judge_mirror(source: Source, train: NDArray[np.int64], measured: Mapping[str, Any]) -> Mirror:
    """Decide from the class names, or else from some training images, if a mirrored image keeps its class."""
    if source.is_unlabeled:
        return Mirror(True, "there are no classes that it could change")
    by_names = judge_by_names(source.classes)
    if by_names is not None:
        return by_names
    median_area_px = measured["height_px"] * measured["width_px"]
    num_probed = min(PROBE_IMAGES, max(_FEWEST_PROBED, _PROBE_PIXELS // max(1, median_area_px)))
    probed = train[permutation(derive(0, "mirror"), len(train))[:num_probed]]
    in_chans = 1 if measured["in_chans"] == 3 else measured["in_chans"]
    shrink = Preprocess((PROBE_SIDE_PX, PROBE_SIDE_PX), in_chans, fit="squash", value_range=measured["value_range"])

    def thumbnail(position: int) -> NDArray[np.uint8] | None:
        try:
            channels = shrink.pixels(source.encoded(int(probed[position]))).numpy()
            return channels.mean(axis=0).astype(np.uint8)
        except DecodeError:  # `load_store` will skip it and report it
            return None

    thumbnails = map_in_order(thumbnail, len(probed))
    readable = [i for i, image in enumerate(thumbnails) if image is not None]
    shrunk = np.array([thumbnails[i] for i in readable], dtype=np.uint8).reshape(-1, PROBE_SIDE_PX, PROBE_SIDE_PX)
    kept = probed[readable]
    groups = None if source.groups is None else source.groups[kept]
    return judge_by_images(shrunk, set_numbers(source.labels[kept]), groups)


def _fingerprint(digests: NDArray[np.uint8], labels: LabelArray, splits: Texts, corrections: object) -> str:
    texts = np.array([f"{label} {split}\n".encode() for label, split in zip(label_texts(labels), splits, strict=True)])
    halves = digests.view(">u8")
    hashed = hashlib.blake2b(repr(corrections).encode() if corrections else b"", digest_size=DIGEST_BYTES)
    for row in np.lexsort((texts, halves[:, 1], halves[:, 0])):
        hashed.update(digests[row].tobytes() + texts[row])
    return hashed.hexdigest()
