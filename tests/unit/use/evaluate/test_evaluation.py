"""count_classes and scored_split: scores per class against values counted by hand, and which split is reported."""

import json
import math

import numpy as np
import pytest
import torch

from vitreous.training.fit.evaluate import Score, score
from vitreous.use.evaluate.evaluation import Evaluation, count_classes, scored_split

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
        ("class", "precision", "recall", "F1", "images"),
        ("ant", "0.500", "0.600", "0.545", "5"),
        ("bee", "0.667", "0.667", "0.667", "3"),
        ("cow", "–", "0.000", "0.000", "2"),
        ("dog", "0.000", "–", "0.000", "0"),
    ]
    json.dumps(evaluation.as_dict(), allow_nan=False)
    assert evaluation.as_dict()["classes"][3]["recall"] is None
    # Support is a float in scikit-learn if no image is predicted correctly.
    assert [row[4] for row in count_classes("made", Score(2, 0, 1.0), [0, 3], [3, 0], CLASSES).class_rows[1:]] == [
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
    assert found.confused_most(1) == [("class 1", "class 0", 1)]
    assert len(found.score.counts.never_predicted) == num - 1  # type: ignore[union-attr]


def test_macro_f1_averages_over_the_classes_that_occur(evaluation: Evaluation) -> None:
    assert evaluation.macro_f1 == pytest.approx((2 * 0.5 * 0.6 / 1.1 + 2 / 3 + 0) / 3)


def test_most_frequent_mistakes_come_first_and_correct_predictions_are_left_out(evaluation: Evaluation) -> None:
    assert evaluation.confused_most(2) == [("cow", "ant", 2), ("ant", "bee", 1)]
    assert evaluation.confused_most(99) == [
        ("cow", "ant", 2), ("ant", "bee", 1), ("ant", "dog", 1), ("bee", "ant", 1),
    ]  # fmt: skip


def test_perfect_model_confuses_nothing() -> None:
    assert count_classes("made", Score(3, 3, 0.1), [0, 1, 1], [0, 1, 1], CLASSES).confused_most() == []


def test_dictionary_has_all_scores_as_plain_values(evaluation: Evaluation) -> None:
    found = evaluation.as_dict()
    assert found["data"] == "made"
    assert (found["accuracy"], found["num_images"], found["num_correct"], found["loss"]) == (0.5, 10, 5, 0.75)
    assert found["confusion"][0] == [3, 1, 0, 1]
    assert found["classes"][1] == {
        "name": "bee", "precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3), "num_images": 3,
    }  # fmt: skip
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
