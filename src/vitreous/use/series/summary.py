"""Series folder -> Summary: score of every run, spread over runs, accuracy over all folds, interval over seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from vitreous.model.weights import read_metadata
from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.multilabel import LabelScore
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.series import Member, members, read_series
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.stored import stored_evaluation, stored_score


@dataclass(frozen=True)
class Row:
    """One finished run, by the name of its folder in the series, and its score on a split.

    Its fold is None without folds; its split is `val` if the run has no test images. If the weights were
    `chosen_on_it`, the score is optimistic.
    """

    name: str
    fold: int | None
    seed: int
    split: str
    score: Score
    chosen_on_it: bool = False


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation, lowest and highest of several accuracies, all in [0, 1].

    The standard deviation has n − 1 in the denominator; it is NaN for a single accuracy.
    """

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Results of the finished runs of a series.

    `name` is that of the folder and `data` that of the data set. `num_planned` is the number of requested runs, and
    `num_folds` is 0 without folds. Rows are the finished runs, in the order of training.
    """

    name: str
    data: str
    num_planned: int
    num_folds: int
    rows: tuple[Row, ...]

    @property
    def accuracy(self) -> float:
        """Accuracy over all images, each tested once, averaged over seeds; NaN if no seed has all its folds."""
        pooled = self.by_seed()
        return spread([score.accuracy for score in pooled.values()]).mean if pooled else float("nan")

    def over_runs(self, metric: str = "accuracy") -> Spread:
        """Return the spread of the accuracies of all runs, or of another number of their scores."""
        return spread([getattr(row.score, metric) for row in self.rows])

    def by_seed(self) -> dict[int, Score]:
        """Return the score over all folds for each seed whose folds are all finished; each image counts once."""
        scores_of: dict[int, list[Score]] = {}
        for row in self.rows:
            scores_of.setdefault(row.seed, []).append(row.score)
        return {seed: pool(scores) for seed, scores in scores_of.items() if len(scores) == max(1, self.num_folds)}

    def over_seeds(self, metric: str = "accuracy") -> tuple[Spread, tuple[float, float]] | None:
        """Return the spread over seeds and the 95% interval of their mean; None for fewer than two seeds."""
        values = [getattr(score, metric) for score in self.by_seed().values()]
        return (spread(values), t_interval(values)) if len(values) > 1 else None

    @property
    def is_multilabel(self) -> bool:
        """True if the runs are for images that may have several labels."""
        return any(isinstance(row.score, LabelScore) for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Return all results as plain values for JSON."""
        over_seeds = self.over_seeds()
        return {
            "series": self.name,
            "data": self.data,
            "num_planned": self.num_planned,
            "num_finished": len(self.rows),
            "num_folds": self.num_folds,
            "accuracy": self.accuracy if self.by_seed() else None,
            "runs": [
                {"run": row.name, "fold": row.fold, "seed": row.seed, "split": row.split, **row.score.as_dict()}
                for row in self.rows
            ],
            "over_runs": _plain(self.over_runs()) if self.rows else None,
            "by_seed": {str(seed): score.as_dict() for seed, score in self.by_seed().items()},
            "over_seeds": over_seeds and _plain(over_seeds[0]) | {"interval_95": list(over_seeds[1])},
        }


def summarize_series(folder: SeriesFolder) -> Summary:
    """Read the scores of the finished runs of a series.

    Raises:
        NotARunError: The folder is not a series.
        DamagedFileError: A file of the series was altered.
    """
    request = read_series(folder)
    planned = members(request)
    rows, data = [], folder.path.name
    for member in planned:
        run = RunFolder(folder.path / member.name)
        if run.model.is_file():
            metadata = read_metadata(run.model)
            data = metadata["data"]
            rows += _rows(member, run, metadata)
    return Summary(folder.path.resolve().name, data, len(planned), request.folds, tuple(rows))


def pool(scores: Iterable[Score]) -> Score:
    """Combine scores on different images into the score over all of them.

    Mean average precision and F1 are averaged, because probabilities of different models cannot be ranked together.
    """
    scores = list(scores)
    num_images = sum(score.num_images for score in scores)
    loss = sum(score.loss * score.num_images for score in scores) / num_images
    counts = [score.counts for score in scores if score.counts is not None]
    are_alike = len(counts) == len(scores) and len({count.classes for count in counts}) == 1
    pooled = reduce(add, counts) if are_alike else None
    num_correct = sum(score.num_correct for score in scores)
    labels = [score for score in scores if isinstance(score, LabelScore)]
    if len(labels) == len(scores):
        all_three = [(score.mean_average_precision, score.micro_f1, score.macro_f1) for score in labels]
        precision, micro, macro = np.mean(all_three, axis=0).tolist()
        return LabelScore(num_images=num_images, num_correct=num_correct, loss=loss,
                          mean_average_precision=precision, micro_f1=micro, macro_f1=macro)  # fmt: skip
    return Score(num_images, num_correct, loss, pooled)


def spread(values: Sequence[float]) -> Spread:
    """Compute the spread of at least one value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(np.mean(values)), std, min(values), max(values))


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of the mean of at least two normally distributed values (Student 1908)."""
    from scipy import stats

    half_width = float(stats.t.ppf(0.975, len(values) - 1)) * float(stats.sem(values))
    return float(np.mean(values)) - half_width, float(np.mean(values)) + half_width


def _rows(member: Member, run: RunFolder, metadata: dict[str, Any]) -> list[Row]:
    split = scored_split(metadata["metrics"])
    if split is None:
        return []
    score = stored_score(metadata["metrics"][split])
    if run.predictions.is_file():
        score = stored_evaluation(run, metadata, split).score
    chosen_on_it = split == "val" and metadata.get("chosen_on_val", True)  # older runs always chose
    return [Row(member.name, member.fold, member.seed, split, score, chosen_on_it)]


def _plain(spread: Spread) -> dict[str, float | None]:
    return {**asdict(spread), "std": None if np.isnan(spread.std) else spread.std}
