"""Outputs of a run -> how often sets of classes contain the true one, and how large they are."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np

from vitreous.errors import ConfigError
from vitreous.use.evaluate.calibration import Values
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.evaluate.sets.conformal import PER_CLASS, Numbers, by_chance, contained, fit_limits, nonconformity
from vitreous.wording import plural

LEVELS = (0.9, 0.95, 0.99)
_NUM_HALVES = 20
Scores = dict[str, Any]


def in_roles(outputs: Mapping[str, Outputs]) -> tuple[Values, Numbers, int] | None:
    """Return the images that choose limits, then those that measure: validation and test images.

    Returns:
        Their probabilities as `predict` gives them, `[n, classes]`, their true classes, `[n]`, and how many choose. A
        single split chooses. None if there is none, or images have several labels.
    """
    found = [outputs[split] for split in ("val", "test") if split in outputs and len(outputs[split])]
    if not found or found[0].thresholds is not None:
        return None
    rows = [(part.logits / part.temperature).softmax(dim=1).double().numpy() for part in found]
    return np.concatenate(rows), np.concatenate([part.numbers for part in found]), len(found[0])


def measure_sets(outputs: Mapping[str, Outputs]) -> list[Scores]:
    """Measure each kind of sets at each of `LEVELS` for which there are enough images.

    Returns:
        For each: the `kind` of sets, the wanted `level`, `coverage`, where it is `expected` in 90% of cases if a method
        is exact, `num_images`, `mean_size`, and pairs of covered and all images: `by_size` for sets of 1, 2, … classes,
        and `by_class`. Without test images, random halves choose and measure. Then pairs are summed over them, and
        `spread` is the range of 90% of their coverages.
    """
    roles = in_roles(outputs)
    if roles is None:
        return []
    probabilities, true, num = roles
    folds = [(np.arange(num), np.arange(num, len(true)))]
    if num == len(true):
        orders = (np.random.default_rng(seed).permutation(num) for seed in range(_NUM_HALVES))
        folds = [(order[: num // 2], order[num // 2 :]) for order in orders]
    found = []
    for score in ("lac", "aps", "raps"):
        scores = nonconformity(probabilities, score)
        for kind, level in product((score, score + PER_CLASS), LEVELS):
            with suppress(ConfigError):  # too few images
                found.append(_measure(kind, level, scores, true, folds))
    return found


def usual(found: Sequence[Scores]) -> Sequence[Scores]:
    """Return the scores of the default sets at 95%, or else 90%; an empty list if there are none."""
    return [scores for scores in found if scores["kind"] == "lac" and scores["level"] <= 0.95][-1:]


def sets_text(scores: Mapping[str, Any]) -> str:
    """Return one of the scores of `measure_sets` in words."""
    (low, high), coverage, note = scores["expected"], scores["coverage"], ""
    halves = " ({:.1%} to {:.1%} in 90% of random halves)".format(*scores["spread"]) if scores["spread"] else ""
    if not low <= coverage <= high:
        note = ", so it is not chance" if coverage < low else "; it is higher because each set has the predicted class"
    single = scores["by_size"][0][1] / sum(count for _, count in scores["by_size"])
    binary = "; with two classes, rejecting is clearer" if len(scores["by_class"]) == 2 else ""
    return (
        f"sets for {scores['level']:.0%} coverage: contain the class of {coverage:.1%} of "
        f"{plural(scores['num_images'], 'image')}{halves}; {low:.1%} to {high:.1%} expected by chance{note}; "
        f"{scores['mean_size']:.2f} classes on average, one class for {single:.1%}{binary}"
    )


def _measure(kind: str, level: float, scores: Values, true: Numbers, folds: list[tuple[Numbers, Numbers]]) -> Scores:
    names = [str(number) for number in range(scores.shape[1])]
    inside = [contained(scores[b], fit_limits(kind, level, scores[a], true[a], names)) for a, b in folds]
    hits = [sets[np.arange(len(b)), true[b]] for sets, (_, b) in zip(inside, folds, strict=True)]
    covered, sizes = np.concatenate(hits), np.concatenate([sets.sum(axis=1) for sets in inside])
    each = kind.endswith(PER_CLASS)
    groups = [np.bincount(true[part] * each, minlength=len(names) * each) for part in folds[0]]

    def pairs(of: Numbers, num: int) -> list[list[int]]:
        return np.stack([np.bincount(of, covered, num), np.bincount(of, minlength=num)], axis=1).astype(int).tolist()

    return {
        "kind": kind, "level": level, "coverage": float(covered.mean()), "expected": by_chance(level, *groups),
        "spread": np.quantile([part.mean() for part in hits], (0.05, 0.95)).tolist() if len(folds) > 1 else None,
        "num_images": len(folds[0][1]), "mean_size": float(sizes.mean()), "by_size": pairs(sizes, 2)[1:],
        "by_class": pairs(np.concatenate([true[b] for _, b in folds]), len(names)),
    }  # fmt: skip
