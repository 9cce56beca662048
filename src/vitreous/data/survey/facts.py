"""Source -> Survey: every file read once, copies found, splits assigned, and the facts a recipe is chosen from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.cache import DIGEST_BYTES
from vitreous.data.sources import SPLITS, Source, Texts
from vitreous.data.survey.folds import fold_notes, split_by_fold
from vitreous.data.survey.headers import Headers, read_headers
from vitreous.data.survey.mirror import PROBE_IMAGES, PROBE_SIDE_PX, Mirror, judge_by_looks, judge_by_names
from vitreous.data.survey.splits import Digests, assign_splits, torn_groups
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DataError, DecodeError
from vitreous.seeding import derive, permutation

DEFAULT_TEST_RATIO = 0.2

# The mirror probe decodes about this many pixels at most: 2,000 small images, 200 of 12 megapixels.
_PROBE_PIXELS = 400_000_000
_FEWEST_PROBED = 200


@dataclass(frozen=True)
class DataFacts:
    """What is known of a set before any training.

    Attributes:
        name: As its source is called.
        classes: The class names.
        num_train: Images to train on.
        num_val: Images to validate on.
        num_test: Images to test on.
        class_counts: Training images of each class.
        in_chans: 1 where all images are gray, else 3.
        height_px: Median height.
        width_px: Median width.
        min_size_px: Smallest height and smallest width.
        max_size_px: Largest height and largest width.
        skipped: Files that were left out: (which, why).
        notes: Warnings, one sentence each.
        mirror: Whether mirrored images keep their class.
        mirror_reason: Why.
        test_ratio: The share that was held out where the source brought no test split; with K folds 1/K.
        fingerprint: A hash of all contents, labels and splits; the order of files and their names do not change it.
        brings_test: Whether the source brought a test split.
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


@dataclass(frozen=True, eq=False)
class Survey:
    """A source, the sample numbers of each split (`train`, `val`, `test`), the facts, and `[n, 16]` content hashes."""

    source: Source
    indices: dict[str, NDArray[np.int64]]
    facts: DataFacts
    digests: NDArray[np.uint8]


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
    """Read every sample once (hash and header), drop what is no image, and assign the splits.

    Args:
        source: What to look at.
        test_ratio: In [0, 1); None: what the source asks for, else `DEFAULT_TEST_RATIO`. Unused with folds.
        val_ratio: In [0, 1).
        split_seed: Another seed, another split.
        num_folds: 0 for a single split; else one of so many folds is the test part.
        fold: Which one.
        progress: Called with (done, total).

    Returns:
        The survey; `indices[split]` are sorted.

    Raises:
        DataError: No readable image, fewer than two classes, none left for training, or too few for the folds.
    """
    headers = read_headers(source, progress)
    skipped = tuple((source.describe(i), reason) for i, reason in headers.reasons.items())
    kept = np.flatnonzero(headers.numbers >= 0)
    labels, given = source.labels[kept], source.splits[kept]
    groups = None if source.groups is None else source.groups[kept]
    _check_enough(source, labels, skipped)
    digests = headers.packed(kept)
    test_ratio = _test_share(source, test_ratio, num_folds)
    if num_folds:
        splits, folds = split_by_fold(digests, labels, given, num_folds, fold, val_ratio, split_seed, groups)
    else:
        splits = assign_splits(digests, labels, given, test_ratio, val_ratio, split_seed, groups)
    indices = {split: kept[splits == split] for split in SPLITS}
    shapes = _shapes(headers)
    notes = _notes(source.classes, digests, labels, splits) + _group_notes(groups, splits, test_ratio)
    mirror = _judge_mirror(source, indices["train"], shapes["height_px"] * shapes["width_px"])
    facts = DataFacts(
        name=source.name,
        classes=source.classes,
        num_train=len(indices["train"]),
        num_val=len(indices["val"]),
        num_test=len(indices["test"]),
        class_counts=tuple(np.bincount(source.labels[indices["train"]], minlength=len(source.classes)).tolist()),
        **shapes,
        skipped=skipped,
        notes=(*source.notes, *notes, *(fold_notes(source.classes, labels, folds) if num_folds else ())),
        mirror=mirror.keeps_meaning,
        mirror_reason=mirror.reason,
        test_ratio=test_ratio,
        fingerprint=_fingerprint(headers.digests[kept], labels, splits),
        brings_test=bool((given == "test").any()),
    )
    return Survey(source=source, indices=indices, facts=facts, digests=headers.digests)


def _test_share(source: Source, asked: float | None, num_folds: int) -> float:
    if num_folds:
        return 1 / num_folds
    wished = DEFAULT_TEST_RATIO if source.test_ratio is None else source.test_ratio
    return wished if asked is None else asked


def _check_enough(source: Source, labels: NDArray[np.int64], skipped: Sequence[tuple[str, str]]) -> None:
    if len(labels) == 0:
        first = f" (the first, {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise DataError(
            f"data.source={source.name}: none of {len(source)} files is a readable image{first}; check them"
        )
    left = [source.classes[label] for label in np.unique(labels)]
    if len(left) < 2:
        raise DataError(
            f"data.source={source.name}: {len(skipped)} of {len(source)} files are unreadable and leave one class, "
            f"{left[0]!r}; a classifier needs two"
        )


def _shapes(headers: Headers) -> dict[str, Any]:
    sizes = np.array([(header.height, header.width) for header in headers.different])
    sizes = sizes[headers.numbers[headers.numbers >= 0]]
    height_px, width_px = np.median(sizes, axis=0).round().astype(int).tolist()
    return {
        "in_chans": 1 if all(header.is_gray for header in headers.different) else 3,
        "height_px": height_px,
        "width_px": width_px,
        "min_size_px": tuple(sizes.min(axis=0).tolist()),
        "max_size_px": tuple(sizes.max(axis=0).tolist()),
    }


def _judge_mirror(source: Source, train: NDArray[np.int64], median_area_px: int) -> Mirror:
    by_names = judge_by_names(source.classes)
    if by_names is not None:
        return by_names
    num_probed = min(PROBE_IMAGES, max(_FEWEST_PROBED, _PROBE_PIXELS // max(1, median_area_px)))
    probed = train[permutation(derive(0, "mirror"), len(train))[:num_probed]]
    shrink = Preprocess(img_size=(PROBE_SIDE_PX, PROBE_SIDE_PX), in_chans=1, fit="squash")

    def thumbnail(position: int) -> NDArray[np.uint8] | None:
        try:
            return shrink.pixels(source.encoded(int(probed[position])))[0].numpy()
        except DecodeError:  # load_store will drop it, and say so
            return None

    thumbnails = map_in_order(thumbnail, len(probed))
    readable = [i for i, image in enumerate(thumbnails) if image is not None]
    shrunk = np.array([thumbnails[i] for i in readable], dtype=np.uint8).reshape(-1, PROBE_SIDE_PX, PROBE_SIDE_PX)
    return judge_by_looks(shrunk, source.labels[probed[readable]])


def _notes(classes: Sequence[str], digests: Digests, labels: NDArray[np.int64], splits: Texts) -> list[str]:
    notes = []
    _, group = np.unique(np.array(digests, dtype="S"), return_inverse=True)
    for label, name in enumerate(classes):
        num_distinct = len(np.unique(group[labels == label]))
        num_train = int(((labels == label) & (splits == "train")).sum())
        if num_distinct == 0:
            notes.append(f"class {name!r} has no readable image: it cannot be learned")
        elif num_train == 0:
            notes.append(f"class {name!r} has no training image: it cannot be learned")
        elif num_distinct == 1:
            notes.append(f"class {name!r} has one image only: it is trained on, and its accuracy stays unknown")
    for held_out in ("val", "test"):
        num_copies = int(np.isin(group[splits == held_out], group[splits == "train"]).sum())
        if num_copies:
            notes.append(
                f"{num_copies} {held_out} images are exact copies of training images: {held_out} accuracy flatters"
            )
    num_labels = np.unique(np.stack([group, labels]), axis=1).shape[1]
    if num_labels > len(np.unique(group)):
        notes.append(f"{num_labels - len(np.unique(group))} images also stand, byte for byte, in another class")
    return notes


def _group_notes(groups: Texts | None, splits: Texts, test_ratio: float) -> list[str]:
    if groups is None:
        return []
    notes, num_torn = [], torn_groups(groups, splits)
    if num_torn:
        notes.append(f"{num_torn} groups are given as train and as val or test: held-out accuracy flatters")
    if test_ratio and "test" not in splits:
        num_groups = len(set(groups.tolist()) - {""})
        notes.append(f"no test images: {num_groups} groups and the copies that connect them leave none to hold out")
    return notes


def _fingerprint(digests: NDArray[np.uint8], labels: NDArray[np.int64], splits: Texts) -> str:
    texts = np.array([f"{label} {split}\n".encode() for label, split in zip(labels, splits, strict=True)])
    halves = digests.view(">u8")
    hashed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for row in np.lexsort((texts, halves[:, 1], halves[:, 0])):
        hashed.update(digests[row].tobytes() + texts[row])
    return hashed.hexdigest()
