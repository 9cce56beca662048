"""Run folders of a series -> Summary: every run, mean ± spread, accuracy over all folds, interval over seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitreous.model.weights import read_metadata
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.series import Member, members, read_series


@dataclass(frozen=True)
class Row:
    """One finished run.

    Attributes:
        name: Of its folder in the series.
        fold: Which fold it was tested on; None without folds.
        seed: Its seed.
        split: `test`, or `val` where the data has no test images.
        score: On those images.
    """

    name: str
    fold: int | None
    seed: int
    split: str
    score: Score


@dataclass(frozen=True)
class Spread:
    """Several accuracies.

    Attributes:
        mean: In [0, 1].
        std: Their standard deviation with n − 1 in the denominator; NaN for one.
        low: The lowest.
        high: The highest.
    """

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What the finished runs of a series say together.

    Attributes:
        name: Of the folder.
        data: Of the set.
        num_planned: Runs that were asked for.
        num_folds: 0 without folds.
        rows: Finished runs, in their order.
    """

    name: str
    data: str
    num_planned: int
    num_folds: int
    rows: tuple[Row, ...]

    @property
    def accuracy(self) -> float:
        """Mean over all runs, each image of all folds counting once; NaN while there is no run."""
        pooled = self.by_seed()
        return spread([score.accuracy for score in pooled.values()]).mean if pooled else float("nan")

    def over_runs(self) -> Spread:
        """Of the accuracies of the runs."""
        return spread([row.score.accuracy for row in self.rows])

    def by_seed(self) -> dict[int, Score]:
        """For each seed whose folds are all there, the score over all images: every one is tested once."""
        found: dict[int, list[Score]] = {}
        for row in self.rows:
            found.setdefault(row.seed, []).append(row.score)
        return {seed: pool(scores) for seed, scores in found.items() if len(scores) == max(1, self.num_folds)}

    def over_seeds(self) -> tuple[Spread, tuple[float, float]] | None:
        """Spread of the seeds' accuracies, and the 95 % interval of their mean; None for fewer than two seeds."""
        accuracies = [score.accuracy for score in self.by_seed().values()]
        return (spread(accuracies), t_interval(accuracies)) if len(accuracies) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
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


def summarise_series(folder: SeriesFolder) -> Summary:
    """Read what the finished runs of a series wrote.

    Raises:
        NotARunError: The folder holds no series.
        DamagedFileError: A file of it was altered.
    """
    request = read_series(folder)
    planned = members(request)
    rows, data = [], folder.path.name
    for member in planned:
        run = RunFolder(folder.path / member.name)
        if run.model.is_file():
            metadata = read_metadata(run.model)
            data = metadata["data"]
            rows += _rows(member, metadata["metrics"])
    return Summary(folder.path.resolve().name, data, len(planned), request.folds, tuple(rows))


def pool(scores: Iterable[Score]) -> Score:
    """The score over the images of all of them."""
    parts = list(scores)
    num_images = sum(part.num_images for part in parts)
    loss = sum(part.loss * part.num_images for part in parts) / num_images
    return Score(num_images, sum(part.num_correct for part in parts), loss)


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation (n − 1) and extremes of at least one value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(np.mean(values)), std, min(values), max(values))


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of at least two values that are drawn from one normal distribution (Student 1908)."""
    from scipy import stats

    half_width = float(stats.t.ppf(0.975, len(values) - 1)) * float(stats.sem(values))
    return float(np.mean(values)) - half_width, float(np.mean(values)) + half_width


def _rows(member: Member, metrics: dict[str, Any]) -> list[Row]:
    split = next((name for name in ("test", "val") if name in metrics), None)
    if split is None:
        return []
    found = metrics[split]
    score = Score(found["num_images"], found["num_correct"], found["loss"])
    return [Row(member.name, member.fold, member.seed, split, score)]


def _plain(found: Spread) -> dict[str, float | None]:
    std = None if np.isnan(found.std) else found.std
    return {"mean": found.mean, "std": std, "low": found.low, "high": found.high}
