"""Outputs of a run -> what is gained by leaving the least certain predictions to a person."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitreous.use.evaluate.calibration import Values, top_label
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.evaluate.sets.measured import Scores, in_roles

SHARES, TARGETS = (0.1, 0.2, 0.5), (0.8, 0.9, 0.95, 0.99)
_DOUBT = 0.05


def measure_rejecting(outputs: Mapping[str, Outputs]) -> Scores | None:
    """Measure rejecting on the test images, or on the validation images if there are no others; None like `in_roles`.

    Returns:
        The `accuracy` of all predictions and that `without` some shares of the least certain ones; up to 200 points of
        the risk-coverage `curve`: a share of the predictions, most certain first, and the share of mistakes among them;
        its area `aurc`, and `excess_aurc`, which another order could avoid; and what is `kept` for each accuracy of
        `TARGETS` that can be guaranteed. Ties are in random order.

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
    limits = {target: least_confidence(confidence[known], is_correct[known], target) for target in TARGETS}
    return {
        "accuracy": float(accuracy[-1]), "curve": np.stack([counts / len(counts), 1 - accuracy], 1)[shown].tolist(),
        "aurc": float(1 - accuracy.mean()), "excess_aurc": float((best - accuracy).mean()),
        "without": {part: float(accuracy[math.ceil((1 - part) * len(counts)) - 1]) for part in SHARES},
        "kept": {
            target: {"probability_above": limit, "share": float(stays.mean()),
                     "accuracy": float(is_correct[new][stays].mean()) if new.start and stays.any() else None}
            for target, limit in limits.items() if limit is not None for stays in [confidence[new] > limit]
        },
    }  # fmt: skip


def rejecting_text(scores: Mapping[str, Any]) -> str:
    """Return the scores of `measure_rejecting` in words."""
    rates = [f"{accuracy:.1%} without the least certain {share:.0%}" for share, accuracy in scores["without"].items()]
    best = [f"; --reject {target:g} keeps {kept['share']:.1%}" for target, kept in scores["kept"].items()]
    return f"accuracy {', '.join(rates)}{''.join(best[-1:])}"


def least_confidence(confidence: Values, is_correct: Values, accuracy: float) -> float | None:
    """Return a confidence above which new predictions have this accuracy, in (0, 1); None if that is not guaranteed.

    The guarantee holds with a probability of 95% over the choice of these images, `[n]`, which the model must not have
    been trained on. More and more of the most confident predictions are tested, until a binomial test leaves doubt.
    Their numbers are fixed in advance, so 95% holds for all tests together. The first one has enough images to pass
    with half of the allowed mistakes, or else half of the images.

    Source: fixed-sequence testing, as in Learn then Test, Angelopoulos et al. 2021 (2110.01052). It assumes that kept
    predictions are not less accurate if the limit is higher.
    """
    from scipy.stats import binom

    num, fewest = len(confidence), math.ceil(math.log(_DOUBT) / math.log(accuracy))  # if all are correct
    if num < fewest:
        return None
    order = np.argsort(-confidence, kind="stable")
    ranked, right = confidence[order], np.cumsum(is_correct[order])
    counts = np.array([*range(min(4 * fewest, max(fewest, num // 2)), num, max(1, num // 50)), num])
    counts = np.unique(np.searchsorted(-ranked, -ranked[counts - 1], side="right"))  # ties stay together
    passed = np.cumprod(binom.sf(right[counts - 1] - 1, counts, accuracy) <= _DOUBT)
    last = int((counts * passed).max())
    return None if not last else float(ranked[last]) if last < num else 0.0
