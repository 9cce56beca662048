"""Intervals and curves, compared with scipy, scikit-learn, a bootstrap over images, and repeated experiments."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from vitreous.use.evaluate.calibration import calibration_error
from vitreous.use.evaluate.metrics.scores import bootstrap, operating_curves, wilson

NAMES = ("macro_f1", "balanced_accuracy", "kappa", "mcc")


def draw(num_images: int, seed: int, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return true and predicted classes; class 0 has half of the images, and 70% are predicted correctly."""
    draws = np.random.default_rng(seed)
    true = draws.choice(num_classes, size=num_images, p=[0.5, *[0.5 / (num_classes - 1)] * (num_classes - 1)])
    return true, np.where(draws.random(num_images) < 0.7, true, draws.integers(num_classes, size=num_images))


@pytest.mark.parametrize(("correct", "images"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 9), (4_321, 10_000)])
def test_interval_of_a_share_is_that_of_scipy(correct: int, images: int) -> None:
    expected = binomtest(correct, images).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(correct, images), (expected.low, expected.high), atol=1e-12)


def test_intervals_of_many_shares_are_computed_at_once_and_undefined_without_images() -> None:
    found = wilson([1, 0, 5], [4, 0, 5])
    np.testing.assert_allclose(found, [wilson(1, 4), (np.nan, np.nan), wilson(5, 5)])


def test_drawing_cells_of_the_matrix_equals_drawing_images() -> None:
    true, predicted = draw(150, 1)
    draws, found = np.random.default_rng(7), []
    for _ in range(1_000):
        sample = draws.integers(len(true), size=len(true))
        t, p = true[sample], predicted[sample]
        found.append((metrics.f1_score(t, p, average="macro"), metrics.balanced_accuracy_score(t, p),
                      metrics.cohen_kappa_score(t, p), metrics.matthews_corrcoef(t, p)))  # fmt: skip
    expected = np.quantile(found, (0.025, 0.975), axis=0).T
    ours = bootstrap(true, predicted, 3)
    np.testing.assert_allclose([ours[name] for name in NAMES], expected, atol=0.02)


def test_same_seed_gives_the_same_interval() -> None:
    true, predicted = draw(60, 2)
    first, again, other = (bootstrap(true, predicted, 3, seed) for seed in (0, 0, 1))
    assert (first["f1"] == again["f1"]).all()
    assert (first["kappa"] != other["kappa"]).any()


def test_the_interval_contains_the_true_value_in_about_95_percent_of_the_cases() -> None:
    # 70% are right by knowledge, a third of the others by chance.
    value, hits = 0.7 + 0.3 / 3, 0
    for seed in range(200):
        low, high = bootstrap(*draw(200, seed), 3)["balanced_accuracy"]
        hits += low <= value <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_a_class_without_mistakes_or_without_images_has_no_interval_of_width_0() -> None:
    true, predicted = np.array([0] * 20 + [1] * 20 + [2] * 20), np.array([0] * 20 + [1] * 15 + [2] * 25)
    found = bootstrap(true, predicted, 4)
    assert np.isnan(found["f1"][[0, 3]]).all()
    assert found["f1"][1, 0] < found["f1"][1, 1]
    assert found["macro_f1"][0] < found["macro_f1"][1]
    assert all(np.isnan(ends).all() for ends in bootstrap(true, true, 3).values())


def test_curves_have_the_areas_of_scikit_learn_and_at_most_200_points() -> None:
    draws = np.random.default_rng(4)
    is_true = draws.random(5_000) < 0.3
    likely = draws.normal(is_true * 1.0).round(2)  # with ties
    found = operating_curves("x", likely, is_true)
    assert found is not None
    assert found["roc_auc"] == metrics.roc_auc_score(is_true, likely)
    assert found["average_precision"] == metrics.average_precision_score(is_true, likely)
    assert len(found["roc"]) <= 200
    assert len(found["precision_recall"]) <= 200
    rates, recalls, thresholds = metrics.roc_curve(is_true, likely)
    exact = {(x, y) for x, y in zip(rates.tolist(), recalls.tolist(), strict=True)}
    assert {point[:2] for point in found["roc"]} <= exact
    assert found["roc"][0] == (0.0, 0.0, None)  # nothing is predicted
    assert found["roc"][-1] == (1.0, 1.0, thresholds[-1])
    assert found["precision_recall"][-1] == (0.0, 1.0, None)
    # The area under the kept points is nearly the whole one.
    x, y, _ = zip(*found["roc"], strict=True)
    assert np.trapezoid(y, x) == pytest.approx(found["roc_auc"], abs=0.003)


@pytest.mark.parametrize("is_true", [[True, True], [False, False]])
def test_a_class_that_all_or_no_images_have_has_no_curves(is_true: list[bool]) -> None:
    assert operating_curves("x", np.array([0.2, 0.7]), np.array(is_true)) is None


def test_torchmetrics_differs_where_its_last_bin_holds_a_confidence_of_exactly_1() -> None:
    confidence, is_correct = np.array([1.0, 0.95, 0.95, 0.5]), np.array([1.0, 0.0, 1.0, 1.0])
    # Its bins include their lower end: numbers of the bins by torch.bucketize(…, right=True) - 1.
    bins = np.searchsorted(np.linspace(0, 1, 16), confidence, side="right") - 1
    theirs = sum(
        (bins == number).mean() * abs(confidence[bins == number].mean() - is_correct[bins == number].mean())
        for number in set(bins.tolist())
    )
    assert sorted(set(bins.tolist())) == [7, 14, 15]  # the last one is a sixteenth bin
    ours = (0.5 * 1 + abs((1.0 + 0.95 + 0.95) - 2)) / 4
    assert calibration_error(confidence, is_correct) == pytest.approx(ours)
    assert theirs == pytest.approx((0.5 + 0.0 + abs(0.95 * 2 - 1)) / 4)
