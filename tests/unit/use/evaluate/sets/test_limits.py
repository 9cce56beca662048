"""Limits of sets and of rejecting, compared with loops over classes, with scipy, and with what the theory says."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binomtest

from vitreous.errors import ConfigError
from vitreous.use.evaluate.sets.limits import by_chance, contained, fit_limits, least_confidence, nonconformity

KINDS = ("lac", "aps", "raps")
NAMES = ("cat", "dog", "owl", "pig", "elk", "fox", "ant")


def draw(num_images: int, seed: int, num_classes: int = 7, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, and classes that are drawn from them."""
    generator = np.random.default_rng(seed)
    shares = np.exp(spread * generator.normal(size=(num_images, num_classes)))
    probabilities = shares / shares.sum(axis=1, keepdims=True)
    drawn = (probabilities.cumsum(axis=1) < generator.random((num_images, 1))).sum(axis=1)
    return probabilities, drawn.clip(max=num_classes - 1)


def naive_score(row: np.ndarray, number: int, kind: str, share: float) -> float:
    """Return the score of one class by its definition."""
    if kind == "lac":
        return 1 - row[number]
    above = sorted((p for p in row if p > row[number]), reverse=True)
    penalty = 0.01 * max(0, len(above) + 1 - 5) if kind == "raps" else 0.0
    return sum(above) + penalty + share * row[number]


# Scores.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_scores_are_those_of_their_definition(kind: str, share: float) -> None:
    rows = np.vstack([
        draw(20, 1)[0],
        [0.2, 0.2, 0.1, 0.1, 0.2, 0.1, 0.1],  # ties
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        np.full(7, 1 / 7),
    ])  # fmt: skip
    wanted = [[naive_score(row, number, kind, share) for number in range(7)] for row in rows]
    np.testing.assert_allclose(nonconformity(rows, kind, share), wanted, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_tied_classes_have_exactly_the_same_score(kind: str) -> None:
    rows = np.array([[0.1, 0.3, 0.1, 0.2, 0.3], [0.2, 0.2, 0.2, 0.2, 0.2]])
    for row, scores in zip(rows, nonconformity(rows, kind), strict=True):
        for i in range(5):
            assert {scores[j] for j in range(5) if row[j] == row[i]} == {scores[i]}


@pytest.mark.parametrize("kind", ["aps", "raps"])
def test_probability_of_exactly_1_does_not_put_all_classes_into_the_sets(kind: str) -> None:
    certain, true = np.eye(4)[[0, 1, 2, 3] * 25], np.array([0, 1, 2, 3] * 25)
    true[0] = 2  # one of 100 is wrong with certainty
    limits = fit_limits(kind, 0.95, nonconformity(certain, kind), true, NAMES[:4])
    inside = contained(nonconformity(certain, kind), limits)
    assert inside.sum(axis=1).tolist() == [1] * 100
    with_itself = nonconformity(certain, kind, 1.0)  # sums that include the class itself do not distinguish classes
    assert contained(with_itself, fit_limits(kind, 0.95, with_itself, true, NAMES[:4])).all()


# Sets.


@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.booleans(), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_sets_have_the_predicted_class_and_grow_with_coverage(
    seed: int, kind: str, per_class: bool, num_classes: int
) -> None:
    probabilities, true = draw(300, seed, num_classes)
    true[: 20 * num_classes] = np.arange(20 * num_classes) % num_classes
    scores = nonconformity(probabilities, kind)
    kind = f"{kind}-per-class" if per_class else kind
    found = [
        contained(scores, fit_limits(kind, level, scores, true, NAMES[:num_classes])) for level in (0.5, 0.8, 0.95)
    ]
    assert found[0][np.arange(300), probabilities.argmax(axis=1)].all()
    assert (found[0] <= found[1]).all()
    assert (found[1] <= found[2]).all()
    order = np.random.default_rng(seed).permutation(num_classes)
    again = nonconformity(probabilities[:, order], kind)
    limits = fit_limits(kind, 0.8, again, np.argsort(order)[true], NAMES[:num_classes])
    np.testing.assert_array_equal(contained(again, limits), found[1][:, order])


def test_limit_is_the_score_at_the_finite_sample_rank() -> None:
    probabilities, true = draw(120, 2)
    scores = nonconformity(probabilities, "lac")
    for num in (1, 19, 20, 99, 120):
        own = sorted(scores[np.arange(num), true[:num]])
        for coverage in ("0.07", "0.1", "0.29", "0.5", "0.9", "0.95"):
            rank = math.ceil((num + 1) * Decimal(coverage))
            if rank <= num:
                found = fit_limits("lac", float(coverage), scores[:num], true[:num], NAMES)
                assert found.tolist() == [own[rank - 1]] * 7, (num, coverage)


@pytest.mark.parametrize(("coverage", "needed"), [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_images_that_are_missing_are_counted_and_the_way_out_works(coverage: float, needed: int) -> None:
    probabilities, true = draw(needed, 3)
    scores = nonconformity(probabilities, "lac")
    fit_limits("lac", coverage, scores, true, NAMES)
    if needed == 1:
        return
    with pytest.raises(ConfigError) as caught:
        fit_limits("lac", coverage, scores[:-2], true[:-2], NAMES)
    start = f"coverage={coverage:g}: needs {needed} held-out images, 2 more than there are; use at most "
    assert str(caught.value).startswith(start)
    most = float(str(caught.value).removeprefix(start))
    fit_limits("lac", most, scores[:-2], true[:-2], NAMES)
    with pytest.raises(ConfigError):
        fit_limits("lac", most + 0.002, scores[:-2], true[:-2], NAMES)


def test_classes_with_too_few_images_are_named_with_the_number_that_is_missing() -> None:
    true = np.repeat([0, 1, 2], [9, 7, 20])
    scores = nonconformity(draw(36, 4, 4)[0], "aps")
    with pytest.raises(ConfigError) as caught:
        fit_limits("aps-per-class", 0.9, scores, true, ("cat", "two\nlines", "owl", "x" * 80))
    assert str(caught.value) == (
        "sets=aps-per-class: coverage 0.9 needs 9 held-out images of each class; missing: 2 of two lines and "
        f"9 of {'x' * 26}…{'x' * 13}; use aps, or a lower coverage"
    )
    fit_limits("aps", 0.9, scores, true, ("cat", "dog", "owl", "pig"))


def test_limits_per_class_are_those_of_the_images_of_each_class() -> None:
    probabilities, true = draw(400, 5, 3)
    scores = nonconformity(probabilities, "raps")
    wanted = [fit_limits("raps", 0.9, scores[true == k], true[true == k], NAMES[:3])[k] for k in range(3)]
    assert fit_limits("raps-per-class", 0.9, scores, true, NAMES[:3]).tolist() == wanted


# Coverage.


@pytest.mark.parametrize(("kind", "is_random"), [("lac", False), ("aps", True), ("raps", True)])
def test_mean_coverage_of_300_draws_is_the_exact_one(kind: str, is_random: bool) -> None:
    """Of scores without ties, the coverage is rank / (n + 1) on average; the predicted class is not added here."""
    num_calibration, num_test, found = 50, 100, []
    for seed in range(300):
        probabilities, true = draw(num_calibration + num_test, seed)
        share = np.random.default_rng((7, seed)).random((len(true), 1)) if is_random else 0.0
        scores = nonconformity(probabilities, kind, share)
        limits = fit_limits(kind, 0.9, scores[:num_calibration], true[:num_calibration], NAMES)
        found.append((scores <= limits)[np.arange(50, 150), true[50:]].mean())
    exact = math.ceil(51 * 0.9) / 51
    assert abs(np.mean(found) - exact) < 3 * np.std(found) / 300**0.5


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_of_deterministic_sets_is_not_lower_overall_or_in_each_class(kind: str) -> None:
    found = []
    for seed in range(150):
        probabilities, true = draw(330, seed, 3)
        scores = nonconformity(probabilities, kind)
        limits = fit_limits(f"{kind}-per-class", 0.8, scores[:130], true[:130], NAMES[:3])
        covered = contained(scores[130:], limits)[np.arange(200), true[130:]]
        found.append([covered[true[130:] == number].mean() for number in range(3)])
    error = np.std(found, axis=0) / 150**0.5
    assert (np.mean(found, axis=0) > 0.8 - 3 * error).all()


def test_expected_range_is_that_of_the_beta_binomial_distribution() -> None:
    low, high = by_chance(0.95, np.array([340]), np.array([372]))
    rank = math.ceil(341 * 0.95)
    exact = betabinom(372, rank, 341 - rank)
    assert (low * 372, high * 372) == pytest.approx((exact.ppf(0.05), exact.ppf(0.95)))


def test_expected_range_of_several_limits_is_that_of_simulated_images() -> None:
    num_calibration, num_test = np.array([20, 60, 35]), np.array([30, 0, 50])
    ranks = np.ceil((num_calibration + 1) * 0.9)
    generator = np.random.default_rng(0)
    shares = generator.beta(ranks, num_calibration + 1 - ranks, size=(20_000, 3))
    simulated = generator.binomial(num_test, shares).sum(axis=1) / 80
    np.testing.assert_allclose(
        by_chance(0.9, num_calibration, num_test), np.quantile(simulated, (0.05, 0.95)), atol=1 / 80 + 1e-9
    )


# Rejecting.


def naive_least(confidence: np.ndarray, is_correct: np.ndarray, accuracy: float) -> float | None:
    """Test groups of the most confident predictions one after the other, with scipy's test."""
    pairs = sorted(zip(confidence.tolist(), is_correct.tolist(), strict=True), reverse=True)
    num = len(pairs)
    fewest = next(n for n in range(1, 10_000) if accuracy**n <= 0.05)
    limit, size = None, min(4 * fewest, max(fewest, num // 2))
    while size <= num and num >= fewest:
        lowest = pairs[size - 1][0]
        kept = [correct for value, correct in pairs if value >= lowest]
        if binomtest(int(sum(kept)), len(kept), accuracy, alternative="greater").pvalue > 0.05:
            break
        limit = max((value for value, _ in pairs if value < lowest), default=0.0)
        size = num if num - max(1, num // 50) < size < num else size + max(1, num // 50)
    return limit


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.9])
def test_confidence_is_that_of_tests_one_after_the_other(seed: int, accuracy: float) -> None:
    generator = np.random.default_rng(seed)
    confidence = generator.random([40, 150, 333][seed % 3])
    if seed > 2:
        confidence = confidence.round(1)  # many ties
    is_correct = (generator.random(len(confidence)) < 0.5 + confidence / 2).astype(float)
    assert least_confidence(confidence, is_correct, accuracy) == naive_least(confidence, is_correct, accuracy)


def test_accuracy_of_kept_predictions_is_as_guaranteed_in_95_percent_of_draws() -> None:
    generator, misses, kept = np.random.default_rng(0), 0, 0
    for _ in range(600):
        confidence = generator.random(200)
        is_correct = (generator.random(200) < 0.6 + 0.4 * confidence).astype(float)
        limit = least_confidence(confidence, is_correct, 0.85)
        if limit is not None:
            kept += 1
            misses += 0.6 + 0.4 * (1 + limit) / 2 < 0.85  # the true accuracy above the limit
    assert kept > 300
    assert binomtest(misses, 600, 0.05, alternative="greater").pvalue > 0.01


def test_nothing_is_rejected_if_all_are_correct_and_no_limit_is_enough_if_none_is() -> None:
    confidence = np.random.default_rng(1).random(60)
    assert least_confidence(confidence, np.ones(60), 0.95) == 0.0
    assert least_confidence(confidence, np.zeros(60), 0.01) is None
    assert least_confidence(confidence[:58], np.ones(58), 0.95) is None  # 0.95 ** 58 > 0.05
    assert least_confidence(confidence[:59], np.ones(59), 0.95) == 0.0


def test_predictions_with_the_same_confidence_are_kept_or_rejected_together() -> None:
    confidence, is_correct = np.repeat([0.9, 0.4], [120, 80]), np.repeat([1.0, 0.0], [120, 80])
    assert least_confidence(confidence, is_correct, 0.9) == 0.4
    assert least_confidence(np.ones(200), is_correct, 0.9) is None
