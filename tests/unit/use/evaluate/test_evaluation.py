"""count_classes and scored_split: scores per class against values counted by hand, and which split is reported."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics

from vitreous.training.fit.evaluate import Score, score
from vitreous.use.evaluate.evaluation import Evaluation, count_classes, scored_split, shown

CLASSES = ("ant", "bee", "cow", "dog")
TRUE = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]  # no image shows a dog
PREDICTED = [0, 0, 0, 1, 3, 1, 1, 0, 0, 0]  # no image is predicted as a cow


@pytest.fixture
def evaluation() -> Evaluation:
    return count_classes("made", Score(10, 5, 0.75), TRUE, PREDICTED, CLASSES)


def test_confusion_matrix_has_true_classes_as_rows_and_predicted_classes_as_columns(evaluation: Evaluation) -> None:
    np.testing.assert_array_equal(evaluation.confusion, [[3, 1, 0, 1], [1, 2, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
    assert evaluation.confusion.dtype == np.int64


def test_precision_recall_and_f1_equal_those_counted_by_hand(evaluation: Evaluation) -> None:
    by_hand = {
        "ant": (3 / 6, 3 / 5, 2 * 0.5 * 0.6 / 1.1, 5),
        "bee": (2 / 3, 2 / 3, 2 / 3, 3),
        "cow": (math.nan, 0.0, 0.0, 2),
        "dog": (0.0, math.nan, 0.0, 0),
    }
    for row in evaluation.classes:
        assert (row.precision, row.recall, row.f1, row.num_images) == pytest.approx(by_hand[row.name], nan_ok=True)


def test_recall_of_a_class_without_images_is_a_dash_and_counts_are_whole_numbers(evaluation: Evaluation) -> None:
    assert evaluation.class_rows == [
        ("class", "precision", "95% interval", "recall", "95% interval", "F1", "AP", "images"),
        ("ant", "0.500", "0.19–0.81", "0.600", "0.23–0.88", "0.545", "–", "5"),
        ("bee", "0.667", "0.21–0.94", "0.667", "0.21–0.94", "0.667", "–", "3"),
        ("cow", "–", "–", "0.000", "0.00–0.66", "0.000", "–", "2"),
        ("dog", "0.000", "0.00–0.79", "–", "–", "0.000", "–", "0"),
    ]
    json.dumps(evaluation.as_dict(), allow_nan=False)
    assert evaluation.as_dict()["classes"][3]["recall"] is None
    # Support is a float in scikit-learn if no image is predicted correctly.
    assert [row[-1] for row in count_classes("made", Score(2, 0, 1.0), [0, 3], [3, 0], CLASSES).class_rows[1:]] == [
        "1", "0", "0", "1",
    ]  # fmt: skip


def test_scores_carry_baseline_balanced_accuracy_and_classes_never_predicted(evaluation: Evaluation) -> None:
    found = evaluation.as_dict()
    assert (found["majority_class"], found["majority_share"]) == ("ant", 0.5)
    assert found["balanced_accuracy"] == pytest.approx((3 / 5 + 2 / 3 + 0) / 3)
    assert found["never_predicted"] == ["cow"]


def test_thousands_of_classes_have_scores_but_no_matrix() -> None:
    num = 20_000  # a matrix would take 3 GB
    classes = tuple(f"class {number}" for number in range(num))
    found = count_classes("made", Score(num, 1, 9.0), np.arange(num), np.zeros(num, dtype=np.int64), classes)
    assert found.as_dict()["confusion"] is None
    assert found.confused_most(1) == [("class 1", "class 0", 1, [1])]
    assert len(found.score.counts.never_predicted) == num - 1  # type: ignore[union-attr]


def test_macro_f1_averages_over_the_classes_that_occur(evaluation: Evaluation) -> None:
    assert evaluation.macro_f1 == pytest.approx((2 * 0.5 * 0.6 / 1.1 + 2 / 3 + 0) / 3)


def test_most_frequent_mistakes_come_first_and_correct_predictions_are_left_out(evaluation: Evaluation) -> None:
    found = evaluation.confused_most(99)
    assert found == [
        ("cow", "ant", 2, [8, 9]), ("ant", "bee", 1, [3]), ("ant", "dog", 1, [4]), ("bee", "ant", 1, [7]),
    ]  # fmt: skip
    assert evaluation.confused_most(2) == found[:2]
    stored = {"true": "cow", "predicted": "ant", "num_images": 2, "images": [8, 9]}
    assert evaluation.as_dict()["confused_most"][0] == stored


def test_images_of_a_mistake_are_their_numbers_in_the_source(evaluation: Evaluation) -> None:
    named = replace(evaluation, indices=np.arange(100, 110))
    assert [images for *_, images in named.confused_most(2)] == [[108, 109], [103]]


def test_perfect_model_confuses_nothing() -> None:
    assert count_classes("made", Score(3, 3, 0.1), [0, 1, 1], [0, 1, 1], CLASSES).confused_most() == []


def test_dictionary_has_all_scores_as_plain_values(evaluation: Evaluation) -> None:
    found = evaluation.as_dict()
    assert found["data"] == "made"
    assert (found["accuracy"], found["num_images"], found["num_correct"], found["loss"]) == (0.5, 10, 5, 0.75)
    assert found["confusion"][0] == [3, 1, 0, 1]
    bee = found["classes"][1]
    assert {key: value for key, value in bee.items() if not key.endswith("interval_95")} == {
        "name": "bee", "precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3), "num_images": 3,
        "average_precision": None,
    }  # fmt: skip
    assert bee["recall_interval_95"] == pytest.approx(tuple(binomtest(2, 3).proportion_ci(method="wilson")))
    assert all(type(count) is int for row in found["confusion"] for count in row)


def test_accuracy_is_the_share_on_the_diagonal() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.5], [0.2, 0.1, 0.0], [0.0, 0.0, 3.0], [1.0, 2.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 2, 0])
    found = count_classes("made", score(logits, labels, "abc"), labels, logits.argmax(dim=1), ("a", "b", "c"))
    assert found.accuracy == np.trace(found.confusion) / found.confusion.sum() == 3 / 5


@pytest.mark.parametrize(
    ("splits", "scored"), [(["train", "val", "test"], "test"), (["train", "val"], "val"), (["train"], None), ([], None)]
)
def test_test_split_is_scored_and_validation_only_without_it(splits: list[str], scored: str | None) -> None:
    assert scored_split(splits) == scored_split(reversed(splits)) == scored


def draw(num_images: int, num_classes: int, seed: int = 0) -> Evaluation:
    """Return the evaluation of a model that is right for about half of the images."""
    draws = np.random.default_rng(seed)
    true = draws.integers(num_classes, size=num_images)
    logits = draws.normal(size=(num_images, num_classes))
    logits[np.arange(num_images), true] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = tuple(f"class {number}" for number in range(num_classes))
    score = Score(num_images, int((probabilities.argmax(axis=1) == true).sum()), 1.0)
    return replace(
        count_classes("drawn", score, true, probabilities.argmax(axis=1), classes), probabilities=probabilities
    )


def test_every_score_is_that_of_scikit_learn() -> None:
    found = draw(300, 5)
    expected = metrics.precision_recall_fscore_support(found.true, found.predicted)
    columns = zip(*((row.precision, row.recall, row.f1, row.num_images) for row in found.classes), strict=True)
    for ours, theirs in zip(columns, expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    each = [metrics.average_precision_score(found.true == k, found.probabilities[:, k]) for k in range(5)]  # type: ignore[index]
    np.testing.assert_allclose([row.average_precision for row in found.classes], each)
    assert found.macro_f1 == pytest.approx(metrics.f1_score(found.true, found.predicted, average="macro"))
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(found.true, found.predicted))
    assert found.mcc == pytest.approx(metrics.matthews_corrcoef(found.true, found.predicted))
    assert metrics.f1_score(found.true, found.predicted, average="micro") == pytest.approx(found.accuracy)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(found.true, found.predicted))
    by_row = metrics.confusion_matrix(found.true, found.predicted, normalize="true")
    np.testing.assert_allclose(found.as_dict()["confusion_rates"], by_row)
    assert found.as_dict()["balanced_accuracy"] == metrics.balanced_accuracy_score(found.true, found.predicted)


@pytest.mark.parametrize(
    ("true", "predicted"), [([0, 0, 0], [0, 0, 0]), ([0, 1, 1], [0, 0, 0]), ([0, 0, 0], [1, 1, 1]), ([1, 0], [1, 0])]
)
def test_agreement_of_predictions_that_do_not_vary_is_that_of_scikit_learn(
    true: list[int], predicted: list[int]
) -> None:
    found = count_classes("made", Score(len(true), 1, 1.0), true, predicted, ("a", "b"))
    if len({*true, *predicted}) == 1:
        assert math.isnan(found.kappa)
        assert math.isnan(found.mcc)
        assert (found.as_dict()["kappa"], found.as_dict()["mcc"]) == (None, None)
        return
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(true, predicted))
    assert found.mcc == pytest.approx(metrics.matthews_corrcoef(true, predicted))


def test_json_has_every_interval_around_its_score() -> None:
    found = draw(200, 4).as_dict()
    json.dumps(found, allow_nan=False)
    for name in ("macro_f1", "balanced_accuracy", "kappa", "mcc"):
        low, high = found[f"{name}_interval_95"]
        assert low < found[name] < high
    for row in found["classes"]:
        for name in ("precision", "recall", "f1"):
            low, high = row[f"{name}_interval_95"]
            assert low < row[name] < high
    assert [pair["num_images"] for pair in found["confused_most"]] == sorted(
        (pair["num_images"] for pair in found["confused_most"]), reverse=True
    )
    assert found["curves"] is None  # there are more than two classes


def test_scores_need_no_probabilities_and_then_there_is_no_calibration(evaluation: Evaluation) -> None:
    assert (evaluation.calibration, evaluation.top_k, evaluation.curves, evaluation.decision) == (None, {}, None, None)
    unknown = replace(evaluation, score=Score(10, 5, math.nan)).as_dict()
    json.dumps(unknown, allow_nan=False)
    assert unknown["loss"] is None


def test_confidence_of_the_predicted_class_is_enough_for_the_calibration_error() -> None:
    known = draw(300, 5)
    confidence = known.probabilities.max(axis=1)  # type: ignore[union-attr]
    found, expected = replace(known, probabilities=None, confidence=confidence).calibration, known.calibration
    assert found is not None
    assert expected is not None
    names = ("ece", "ece_limit", "miscalibration", "discrimination", "confidence")
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]
    assert (found.as_dict()["nll"], found.as_dict()["brier"]) == (None, None)
    assert expected.brier > 0


def test_two_classes_have_curves_of_the_rarer_one() -> None:
    draws = np.random.default_rng(1)
    true = (draws.random(400) < 0.2).astype(np.int64)
    likely = 1 / (1 + np.exp(-draws.normal(2.0 * true - 1.0)))
    made = count_classes("made", Score(400, 300, 0.5), true, likely > 0.5, ("good", "defect"))
    curves = replace(made, probabilities=np.stack([1 - likely, likely], axis=1)).curves
    assert curves is not None
    assert curves["class"] == "defect"
    assert curves["roc_auc"] == pytest.approx(metrics.roc_auc_score(true, likely))
    assert curves["average_precision"] == pytest.approx(metrics.average_precision_score(true, likely))


def test_a_thousand_classes_are_scored_in_seconds() -> None:
    found, start = draw(4_000, 1_000, seed=3), time.process_time()
    json.dumps(found.as_dict(), allow_nan=False)
    assert time.process_time() - start < 30


@pytest.mark.parametrize(
    ("score", "text"), [(0.91249, "0.912"), (math.nan, "–"), (None, "–"), ((0.911, 0.98), "0.91–0.98")]
)
def test_scores_and_intervals_are_shown_with_a_dash_where_they_are_undefined(score: object, text: str) -> None:
    assert shown(score) == text  # type: ignore[arg-type]
