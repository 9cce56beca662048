"""Two runs, or two series, tested on the same images -> which is better, and how sure that is.

Both sides are asked about the same images, so the comparison is paired: what is hard for both says nothing of the
difference, and the interval is narrower than those of the two accuracies suggest.
"""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitreous.errors import DamagedFileError, DataError
from vitreous.model.weights import read_metadata
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.series import members, read_series
from vitreous.use.predict.predictor import find_model
from vitreous.use.series.summary import t_interval

Answers = dict[tuple[str, str], bool]
"""(image, its class) -> whether it was called so."""


@dataclass(frozen=True)
class Comparison:
    """B against A on the images that both were tested on; differences are B − A, in shares of the images.

    Attributes:
        a: Folder of the first.
        b: Folder of the second.
        num_images: That both were tested on.
        num_images_a: That A was tested on.
        num_images_b: That B was tested on.
        accuracy_a: On the common images, mean over A's seeds.
        accuracy_b: As `accuracy_a`.
        difference: B − A.
        interval_95: Of the difference: what other images of the same kind could have given.
        only_a: Images that A alone has right; None with several seeds on a side.
        only_b: As `only_a`.
        p_value: Of the exact McNemar test; None with several seeds on a side.
        seeds: Those that both sides have, where they are two or more.
        interval_seeds_95: Of the difference over these seeds, paired: what other seeds could have given; else None.
    """

    a: str
    b: str
    num_images: int
    num_images_a: int
    num_images_b: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    interval_95: tuple[float, float]
    only_a: int | None
    only_b: int | None
    p_value: float | None
    seeds: tuple[int, ...]
    interval_seeds_95: tuple[float, float] | None

    @property
    def better(self) -> str | None:
        """The folder of the one that is better by every interval there is; None where they cannot be told apart."""
        intervals = [found for found in (self.interval_95, self.interval_seeds_95) if found is not None]
        if all(low > 0 for low, _ in intervals):
            return self.b
        return self.a if all(high < 0 for _, high in intervals) else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"better": self.better}


def compare(a: Path, b: Path) -> Comparison:
    """Compare two runs or series on the images that both were tested on.

    Args:
        a: Folder of a run or of a series.
        b: Another.

    Raises:
        NotARunError: One is neither.
        DataError: One held no images out, or no image was tested by both.
        DamagedFileError: What a run says of its held-out images is not there, or tells images apart by no name.
    """
    of_a, of_b = _answers(a), _answers(b)
    common = sorted(set.intersection(*(set(answers) for answers in (*of_a.values(), *of_b.values()))))
    num_a, num_b = (len(set().union(*side.values())) for side in (of_a, of_b))
    if not common:
        raise DataError(f"compare={a} {b}: none of {num_a} and {num_b} test images is in both; test both on the same")
    right_a, right_b = ({seed: _right(answers, common) for seed, answers in side.items()} for side in (of_a, of_b))
    mean_a, mean_b = (np.mean(list(side.values()), axis=0) for side in (right_a, right_b))
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
        difference=float((mean_b - mean_a).mean()),
        interval_95=paired_interval(mean_b - mean_a),
        only_a=only_a if is_single else None,
        only_b=only_b if is_single else None,
        p_value=mcnemar(only_a, only_b) if is_single else None,
        seeds=seeds,
        interval_seeds_95=t_interval(over_seeds) if seeds else None,
    )


def paired_interval(differences: ArrayLike) -> tuple[float, float]:
    """95 % interval of a mean of paired differences in [−1, 1], one an image.

    Source: Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", eq. 4: one image is added on which only the first is right and one on which only the second is, so
    that few images on which they differ do not look like certainty. Differences between −1 and 1, means over seeds,
    are not treated there; for −1, 0 and 1 this is theirs.
    """
    from scipy.stats import norm

    added = np.append(np.asarray(differences, dtype=np.float64), (1.0, -1.0))
    mean, half_width = float(added.mean()), float(norm.ppf(0.975)) * float(added.std()) / len(added) ** 0.5
    return max(-1.0, mean - half_width), min(1.0, mean + half_width)


def mcnemar(only_a: int, only_b: int) -> float:
    """Probability of so uneven a number of images that one side alone has right, were both equally good.

    Source: McNemar 1947, in its exact binomial form.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _answers(path: Path) -> Mapping[int, Answers]:
    """For each seed, what was right; the folds of a series together."""
    path = path.expanduser()
    series = SeriesFolder(path)
    if not series.series.is_file():
        model = find_model(path)
        return {int(read_metadata(model).get("seed", 0)): _read(RunFolder(model.parent))}
    found: dict[int, Answers] = {}
    for member in members(read_series(series)):
        run = RunFolder(path / member.name)
        find_model(run.path)
        found.setdefault(member.seed, {}).update(_read(run))
    return found


def _read(folder: RunFolder) -> Answers:
    if not folder.predictions.is_file():
        raise DataError(f"{folder.path}: held no images out; a comparison needs runs with test images")
    with folder.predictions.open(encoding="utf-8", newline="") as file:
        rows = [((row["image"], row["label"]), row["label"] == row["called"]) for row in csv.DictReader(file)]
    source = read_config(folder.config).data.source if folder.config.is_file() else ""
    answers = {(_within(image, source), label): right for (image, label), right in rows}
    if len(answers) < len(rows):
        raise DamagedFileError(f"{folder.predictions}: has the same name for several images; they cannot be paired")
    return answers


def _within(image: str, source: str) -> str:
    """An image's name below the data's folder: the same, however the path to that folder was given."""
    parts, folder = PurePath(image).parts, PurePath(source).name
    below = parts[parts.index(folder) + 1 :] if folder in parts else parts
    return "/".join(below) or image


def _right(answers: Answers, images: list[tuple[str, str]]) -> NDArray[np.float64]:
    return np.array([answers[image] for image in images], dtype=np.float64)
