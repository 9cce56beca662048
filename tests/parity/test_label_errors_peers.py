"""Label errors are ranked at least as well as by cleanlab from the same probabilities; we list a part of its list.

cleanlab 2.9 is under the Apache License 2.0 (earlier versions under the AGPL) and is not installed with the tests;
without it, the tests are skipped.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from vitreous.data.doctor.mislabeled import find_doubtful_labels, label_margins

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other library
Peer = Callable[[str], Any]


def drawn(seed: int, strength: float = 4.0) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return out-of-fold probabilities of a model, labels of unequal classes, and which 5% of them are wrong."""
    draws = np.random.default_rng(seed)
    true = draws.choice(4, p=(0.55, 0.25, 0.15, 0.05), size=800)
    scores = draws.normal(size=(800, 4)) + strength * np.eye(4)[true] - np.array([0.0, 0.2, 0.8, 1.5])
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    wrong = draws.random(800) < 0.05
    return probabilities, np.where(wrong, (true + draws.integers(1, 4, 800)) % 4, true), wrong


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ranking_finds_at_least_what_the_adjusted_normalized_margin_finds(seed: int, peer: Peer) -> None:
    """They subtract the thresholds of the classes from the probabilities; we divide by them and take the logarithm."""
    score, (probabilities, labels, wrong) = peer("cleanlab.rank").get_label_quality_scores, drawn(seed)
    ours = label_margins(probabilities, labels)
    theirs = score(labels, probabilities, method="normalized_margin", adjust_pred_probs=True)
    assert 0.5 < spearmanr(-ours, theirs).statistic < 0.999
    found = [wrong[np.argsort(order, kind="stable")[:40]].mean() for order in (-ours, theirs)]
    assert found[0] >= found[1] > 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_listed_labels_are_a_part_of_those_of_confident_learning(seed: int, peer: Peer) -> None:
    """With `filter_by="confident_learning"`, they list the images off the diagonal of the confident joint.

    That is every image for which another class reaches its threshold and is the most probable one of those that do. We
    also ask for a probability of at most 0.1 of its own class, so that fewer correct labels are listed.
    """
    find, (probabilities, labels, wrong) = peer("cleanlab.filter").find_label_issues, drawn(seed, strength=2.5)
    ours = find_doubtful_labels(probabilities, labels, are_probabilities=True).positions
    theirs = find(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    assert theirs[ours].all()
    own = probabilities[np.arange(800), labels]
    assert (own[np.setdiff1d(np.flatnonzero(theirs), ours)] > 0.1).all()
    assert 0 < len(ours) < theirs.sum()
    assert wrong[ours].mean() > wrong[theirs].mean()


def test_the_benchmark_measures_both_rankings_of_the_same_probabilities(peer: Peer, script: Peer) -> None:
    peer("cleanlab")
    probabilities, labels, wrong = drawn(3)
    found = script("label_errors").quality(probabilities, labels, wrong)
    assert found["precision at 5%"] >= found["cleanlab, normalized_margin, precision at 5%"] > 0.5
    assert 0.5 < found["cleanlab, self_confidence, precision at 5%"] <= 1
