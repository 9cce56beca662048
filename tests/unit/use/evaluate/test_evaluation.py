"""count_classes and scored_split: scores per class against values counted by hand, and which split is reported."""

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
        "cow": (0.0, 0.0, 0.0, 2),
        "dog": (0.0, 0.0, 0.0, 0),
    }
    for row in evaluation.classes:
        assert (row.precision, row.recall, row.f1, row.num_images) == pytest.approx(by_hand[row.name])


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
    found = count_classes("made", score(logits, labels), labels, logits.argmax(dim=1), ("a", "b", "c"))
    assert found.accuracy == np.trace(found.confusion) / found.confusion.sum() == 3 / 5


@pytest.mark.parametrize(
    ("splits", "scored"), [(["train", "val", "test"], "test"), (["train", "val"], "val"), (["train"], None), ([], None)]
)
def test_test_split_is_scored_and_validation_only_without_it(splits: list[str], scored: str | None) -> None:
    assert scored_split(splits) == scored_split(reversed(splits)) == scored
