"""Outputs of a run -> what sets of classes are worth, and what is gained by rejecting the least certain predictions."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np

from vitreous.errors import ConfigError
from vitreous.use.evaluate.calibration import Values, top_label
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.evaluate.sets import limits
from vitreous.use.evaluate.sets.limits import PER_CLASS, Numbers
from vitreous.wording import plural

_LEVELS = (0.9, 0.95, 0.99)
_NUM_HALVES = 20
_SHARES, _TARGETS = (0.1, 0.2, 0.5), (0.8, 0.9, 0.95, 0.99)
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
    """Measure each kind of sets at each of `_LEVELS` for which there are enough images.

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
        scores = limits.nonconformity(probabilities, score)
        for kind, level in product((score, score + PER_CLASS), _LEVELS):
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
        note = ", so this is not chance" if coverage < low else "; it may be higher, as sets have the predicted class"
    single = scores["by_size"][0][1] / sum(count for _, count in scores["by_size"])
    binary = "; with two classes, rejecting is clearer" if len(scores["by_class"]) == 2 else ""
    return (
        f"sets for {scores['level']:.0%} coverage contain the class of {coverage:.1%} of "
        f"{plural(scores['num_images'], 'image')}{halves}; {low:.1%} to {high:.1%} expected by chance{note}; "
        f"{scores['mean_size']:.2f} classes on average, one class for {single:.1%}{binary}"
    )


def measure_rejecting(outputs: Mapping[str, Outputs]) -> Scores | None:
    """Measure rejecting on the test images, or on the validation images if there are no others; None like `in_roles`.

    Returns:
        The `accuracy` of all predictions and that `without` some shares of the least certain ones; up to 200 points of
        the risk-coverage `curve`: a share of the predictions, most certain first, and the share of mistakes among them;
        its area `aurc`, and `excess_aurc`, which another order could avoid; and what is `kept` for each accuracy of
        `_TARGETS` that can be guaranteed. Ties are in random order.

    Source: Geifman & El-Yaniv 2017 (1705.08500), Geifman et al. 2019 (1805.08206).
    """
    roles = in_roles(outputs)
    if roles is None:
        return None
    confidence, is_correct = top_label(*roles[:2])
    known, new = slice(roles[2]), slice(roles[2] % len(confidence), None)  # the same images if all choose
    _, group = np.unique(-confidence[new], return_inverse=True)
    share = np.bincount(group, is_correct[new]) / np.bincount(group)
    counts = np.arange(1, len(group) + 1)
    accuracy = np.cumsum(share[np.sort(group)]) / counts
    best = np.minimum(counts, is_correct[new].sum()) / counts
    shown = np.unique(np.linspace(0, len(counts) - 1, 200).round().astype(int))
    reached = {target: limits.least_confidence(confidence[known], is_correct[known], target) for target in _TARGETS}
    return {
        "accuracy": float(accuracy[-1]), "curve": np.stack([counts / len(counts), 1 - accuracy], 1)[shown].tolist(),
        "aurc": float(1 - accuracy.mean()), "excess_aurc": float((best - accuracy).mean()),
        "without": {part: float(accuracy[math.ceil((1 - part) * len(counts)) - 1]) for part in _SHARES},
        "kept": {
            target: {"probability_above": limit, "share": float(stays.mean()),
                     "accuracy": float(is_correct[new][stays].mean()) if new.start and stays.any() else None}
            for target, limit in reached.items() if limit is not None for stays in [confidence[new] > limit]
        },
    }  # fmt: skip


def rejecting_text(scores: Mapping[str, Any]) -> str:
    """Return the scores of `measure_rejecting` in words."""
    rates = [f"{accuracy:.1%} without the least certain {share:.0%}" for share, accuracy in scores["without"].items()]
    best = [f"; --reject {target:g} keeps {kept['share']:.1%}" for target, kept in scores["kept"].items()]
    return f"accuracy {', '.join(rates)}{''.join(best[-1:])}"


def _measure(kind: str, level: float, scores: Values, true: Numbers, folds: list[tuple[Numbers, Numbers]]) -> Scores:
    names = [str(number) for number in range(scores.shape[1])]
    inside = [limits.contained(scores[b], limits.fit_limits(kind, level, scores[a], true[a], names)) for a, b in folds]
    hits = [sets[np.arange(len(b)), true[b]] for sets, (_, b) in zip(inside, folds, strict=True)]
    covered, sizes = np.concatenate(hits), np.concatenate([sets.sum(axis=1) for sets in inside])
    each = kind.endswith(PER_CLASS)
    groups = [np.bincount(true[part] * each, minlength=len(names) * each) for part in folds[0]]

    def pairs(of: Numbers, num: int) -> list[list[int]]:
        return np.stack([np.bincount(of, covered, num), np.bincount(of, minlength=num)], axis=1).astype(int).tolist()

    return {
        "kind": kind, "level": level, "coverage": float(covered.mean()), "expected": limits.by_chance(level, *groups),
        "spread": np.quantile([part.mean() for part in hits], (0.05, 0.95)).tolist() if len(folds) > 1 else None,
        "num_images": len(folds[0][1]), "mean_size": float(sizes.mean()), "by_size": pairs(sizes, 2)[1:],
        "by_class": pairs(np.concatenate([true[b] for _, b in folds]), len(names)),
    }  # fmt: skip
