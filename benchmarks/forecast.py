"""Runs of small_data.py with a short and a long budget -> how accuracy grows with time, and how well that is predicted.

    python benchmarks/small_data.py fashion-mnist cifar10 clothing-96px --data ../shared/data --minutes 1 10
    python benchmarks/small_data.py sign-digits sign-digits@40 clothing-256px --data ../shared/data --minutes 0.5 5
    python benchmarks/small_data.py cifar10@100 cifar10-animals --data ../shared/data --minutes 0.5 5
    python benchmarks/forecast.py

Each data set with two runs, one of which has a tenth of the minutes, gives an exponent a: the share of mistakes falls
as time**-a, where time is the budget less the seconds that are not spent on training. The shorter run must have seen
each image at least once, and the longer one must have used its budget. `LAW` in
`src/vitreous/recipe/forecast.py` has their mean and standard deviation, which this command prints. It predicts the
longer run of each data set from the shorter one, with the exponents of the data sets that come from other sources, and
counts how often the accuracy is within the interval.
"""

from collections.abc import Iterable, Mapping
from math import log, sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from results import results_file
from small_data import by_budget
from vitreous.recipe.forecast import COVERAGE, FEWEST_EPOCHS, Law, forecast, log_mistakes, training_factor

TRACK, SHORT, LEAST_USED = "S", 0.1, 0.9
"""What the plan chooses, the share of the longer budget that the shorter one is, and that the longer run must use."""


class Pair(NamedTuple):
    """Two runs on a data set: minutes of their budgets, and their scores on the test images."""

    short_m: float
    long_m: float
    short: Mapping[str, Any]
    long: Mapping[str, Any]

    def exponent(self) -> tuple[float, float]:
        """Return the exponent of these two runs, and its variance from counting mistakes on few images."""
        of_factor = log(training_factor(60 * self.short_m, 60 * self.long_m))
        (before, noise), (after, more_noise) = (
            log_mistakes(each["num_correct"], each["num_images"]) for each in (self.short, self.long)
        )
        return (before - after) / of_factor, (noise + more_noise) / of_factor**2


def pairs(runs: dict[str, dict[str, Any]]) -> dict[str, Pair]:
    """Return the pair of each data set that has one; the longest if there are several, of the first seed."""
    found = {}
    for (case, track), budgets in by_budget(runs).items():
        for long_m, (long, *_) in budgets.items():
            short_m = round(SHORT * long_m, 6)
            if track != TRACK or short_m not in budgets:
                continue
            short = budgets[short_m][0]
            if short["epochs"] >= FEWEST_EPOCHS and long["wall_s"] >= LEAST_USED * 60 * long_m:
                found[case] = Pair(short_m, long_m, short["test"], long["test"])
    return found


def law_of(measured: Iterable[Pair]) -> Law:
    """Return mean and standard deviation of the exponents of data sets, without the noise of counting mistakes.

    Source: Paule & Mandel 1982, "Consensus values and weighting factors": the variance between data sets is the one for
    which the weighted squares of the deviations have their expected sum. It is 0 if the noise explains all of them.
    """
    exponents, noise = np.array([pair.exponent() for pair in measured]).T

    def mean(variance: float) -> float:
        return float(np.average(exponents, weights=1 / (variance + noise)))

    def excess(variance: float) -> float:
        return float(((exponents - mean(variance)) ** 2 / (variance + noise)).sum()) - (len(exponents) - 1)

    variance = brentq(excess, 0, 10) if excess(0) > 0 else 0.0
    return Law(round(mean(variance), 3), round(sqrt(variance), 3), len(exponents))


def source_of(case: str) -> str:
    """Return the data set from which a case is made."""
    return case.replace("@", "-").split("-")[0]


def table_rows(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Return a row per data set: what was predicted from the shorter run without data of the same source."""
    rows, measured = [], pairs(runs)
    for case, pair in measured.items():
        others = [each for name, each in measured.items() if source_of(name) != source_of(case)]
        said = forecast(pair.short["num_correct"], pair.short["num_images"], 60 * pair.short_m, 60 * pair.long_m,
                        law_of(others))  # fmt: skip
        low, high = said.interval
        reached = pair.long["accuracy"]
        within = "yes" if low <= reached <= high else "no"
        before = f"{pair.short['accuracy']:.1%} in {pair.short_m:g} min"
        after = f"{said.accuracy:.1%} ({low:.1%} to {high:.1%})"
        rows.append(f"| {case} | {before} | {after} | {reached:.1%} in {pair.long_m:g} min | {within} |")
    return rows


def main() -> None:
    """Print the law, and the table of docs/planning.md."""
    runs = results_file("small_data")[1]["runs"]
    rows = table_rows(runs)
    print(*rows, sep="\n")
    num_within = sum(row.endswith("| yes |") for row in rows)
    print(f"\n{law_of(pairs(runs).values())}; {num_within} of {len(rows)} within the interval, {COVERAGE:.0%} expected")


if __name__ == "__main__":
    main()
