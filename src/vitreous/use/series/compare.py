"""Two runs or series, tested on the same images -> Comparison: which is better, with confidence intervals.

The comparison is paired: both sides classify the same images. Images that are hard for both do not affect the
difference, so its interval is narrower than the intervals of the two accuracies suggest.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.corrections import merges, read_corrections
from vitreous.errors import DamagedFileError, DataError
from vitreous.model.weights import read_metadata
from vitreous.paths import expanded
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.series import members, read_series
from vitreous.use.evaluate.paired import paired_interval
from vitreous.use.predict.predictor import find_model
from vitreous.use.predict.table import read_held_out
from vitreous.use.series.summary import t_interval

Answers = dict[tuple[str, str], str]
"""The predicted class for each (image, true class)."""


@dataclass(frozen=True)
class ClassChange:
    """Images of one class that both were tested on, and how many of them only one classifies correctly.

    Images that only A, or only B, classifies correctly are averaged over the seeds.
    """

    name: str
    num_images: int
    only_a: float
    only_b: float


@dataclass(frozen=True)
class Comparison:
    """Comparison of B with A on the images that both were tested on. Differences are accuracies, B − A.

    Attributes:
        a: Folder of A.
        b: Folder of B.
        num_images: Number of images that both were tested on.
        num_images_a: Number of images that A was tested on.
        num_images_b: Number of images that B was tested on.
        accuracy_a: Accuracy of A on the common images, averaged over its seeds.
        accuracy_b: Accuracy of B on the common images, averaged over its seeds.
        majority_class: The largest class of the common images.
        majority_share: Its share, which is the accuracy of always predicting it.
        difference: Accuracy of B minus accuracy of A.
        interval_95: 95% interval of the difference, for other images of the same kind.
        only_a: Number of images that A classifies correctly and B does not; None if a side has several seeds.
        only_b: Number of images that B classifies correctly and A does not; None if a side has several seeds.
        p_value: P-value of the exact McNemar test; None if a side has several seeds.
        seeds: Seeds that both sides have; empty if they share fewer than two.
        interval_seeds_95: 95% interval of the mean difference over `seeds`, paired by seed; None without seeds.
        classes: What changes in each class, in alphabetical order.
    """

    a: str
    b: str
    num_images: int
    num_images_a: int
    num_images_b: int
    accuracy_a: float
    accuracy_b: float
    majority_class: str
    majority_share: float
    difference: float
    interval_95: tuple[float, float]
    only_a: int | None
    only_b: int | None
    p_value: float | None
    seeds: tuple[int, ...]
    interval_seeds_95: tuple[float, float] | None
    classes: tuple[ClassChange, ...]

    @property
    def better(self) -> str | None:
        """Folder of the side that is better by all intervals; None if an interval contains 0."""
        intervals = [found for found in (self.interval_95, self.interval_seeds_95) if found is not None]
        if all(low > 0 for low, _ in intervals):
            return self.b
        return self.a if all(high < 0 for _, high in intervals) else None

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain values for JSON."""
        return asdict(self) | {"better": self.better}


def compare(a: Path, b: Path) -> Comparison:
    """Compare two runs or series on the images that both were tested on.

    If only one of them corrected its data, its labels are the true ones for both.

    Raises:
        NotARunError: A folder is not a run or series.
        DataError: A run has no held-out images, or the two have no test image in common.
        DamagedFileError: The `predictions.csv` of a run was altered, or several images in it have the same name.
    """
    (answers_a, file_a), (answers_b, file_b) = _answers(a), _answers(b)
    if file_b is not None and file_a is None:
        answers_a = _as_corrected(answers_a, answers_b, file_b)
    if file_a is not None and file_b is None:
        answers_b = _as_corrected(answers_b, answers_a, file_a)
    common = sorted(set.intersection(*(set(answers) for answers in (*answers_a.values(), *answers_b.values()))))
    num_a, num_b = (len(set().union(*side.values())) for side in (answers_a, answers_b))
    if not common:
        raise DataError(
            f"compare={a} {b}: have no test image in common (they have {num_a:,} and {num_b:,}); "
            "compare runs that were tested on the same images"
        )
    right_a, right_b = (
        {seed: np.array([answers[image] == image[1] for image in common], np.float64) for seed, answers in side.items()}
        for side in (answers_a, answers_b)
    )
    mean_a, mean_b = (np.mean(list(side.values()), axis=0) for side in (right_a, right_b))
    (majority_class, majority), *_ = Counter(true for _, true in common).most_common(1)
    seeds = tuple(sorted(set(right_a) & set(right_b))) if len(set(right_a) & set(right_b)) > 1 else ()
    over_seeds = [float(np.mean(right_b[seed] - right_a[seed])) for seed in seeds]
    is_single = len(right_a) == len(right_b) == 1
    only_a, only_b = int((mean_a > mean_b).sum()), int((mean_b > mean_a).sum())
    return Comparison(
        a=str(a),
        b=str(b),
        num_images=len(common),
        num_images_a=num_a,
        num_images_b=num_b,
        accuracy_a=float(mean_a.mean()),
        accuracy_b=float(mean_b.mean()),
        majority_class=majority_class,
        majority_share=majority / len(common),
        difference=float((mean_b - mean_a).mean()),
        interval_95=paired_interval(mean_b - mean_a),
        only_a=only_a if is_single else None,
        only_b=only_b if is_single else None,
        p_value=mcnemar(only_a, only_b) if is_single else None,
        seeds=seeds,
        interval_seeds_95=t_interval(over_seeds) if seeds else None,
        classes=_by_class(common, mean_b - mean_a),
    )


def _by_class(images: Sequence[tuple[str, str]], differences: NDArray[np.float64]) -> tuple[ClassChange, ...]:
    true = np.array([name for _, name in images])
    found = []
    for name in dict.fromkeys(sorted(true.tolist())):
        own = differences[true == name]
        found.append(ClassChange(name, len(own), float(np.maximum(-own, 0).sum()), float(np.maximum(own, 0).sum())))
    return tuple(found)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of the exact test of McNemar 1947 for images that only A, or only B, gets right."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _answers(path: Path) -> tuple[Mapping[int, Answers], Path | None]:
    """Return the answers for each seed, with the folds of a series joined, and the file that corrected the data."""
    path, found = expanded(path), dict[int, Answers]()
    planned = members(read_series(SeriesFolder(path))) if SeriesFolder(path).series.is_file() else []
    runs = [(member.seed, find_model(path / member.name)) for member in planned]
    runs = runs or [(int(read_metadata(find_model(path)).get("seed", 0)), find_model(path))]
    for seed, model in runs:
        found.setdefault(seed, {}).update(_read(RunFolder(model.parent)))
    file = RunFolder(runs[0][1].parent).corrections
    return found, file if file.is_file() else None


def _as_corrected(own: Mapping[int, Answers], other: Mapping[int, Answers], file: Path) -> Mapping[int, Answers]:
    """Return the answers with the labels of the other side, and with classes merged as there."""
    merged = merges(read_corrections(file).values())
    truth = dict(image for answers in other.values() for image in answers)
    return {
        seed: {(image, truth.get(image, true)): merged.get(label, label) for (image, true), label in answers.items()}
        for seed, answers in own.items()
    }


def _read(folder: RunFolder) -> Answers:
    if not folder.predictions.is_file():
        raise DataError(f"{folder.path}: has no test images; compare runs that have some")
    rows = read_held_out(folder.predictions)
    names = [read_metadata(find_model(folder.path))["data"]]  # the name at the time of the predictions
    names += [PurePath(read_config(folder.config).data.source).name] if folder.config.is_file() else []
    answers = {(_relative(row.path, names), row.true): row.predicted for row in rows}
    if len(answers) < len(rows):
        raise DamagedFileError(
            f"{folder.predictions}: several images have the same name, so they cannot be paired; rename them and "
            "train again"
        )
    return answers


def _relative(image: str, names: Sequence[str]) -> str:
    """Return the path of an image relative to the data folder, of which `names` are possible names."""
    parts = PurePath(image).parts
    folder = next((name for name in names if name in parts), None)
    relative = parts if folder is None else parts[parts.index(folder) + 1 :]
    return "/".join(relative) or image
