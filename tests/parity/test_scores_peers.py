"""Scores of `vitreous evaluate` are those of torchmetrics and netcal, from the same probabilities.

Both are under the Apache License 2.0 and not installed with the tests; without them, the tests are skipped.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.multilabel import score_labels
from vitreous.use.evaluate.calibration import calibration_error, top_label
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.evaluate.multilabel import score_each_label

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other libraries
Peer = Callable[[str], Any]
CLASSES = ("a", "b", "c", "d")


def drawn(num_classes: int = 4, num_images: int = 300) -> Evaluation:
    """Evaluate predictions that are often wrong; the first class is rare, and the last one does not occur."""
    generator = np.random.default_rng(num_classes)
    shares = np.exp(generator.normal(size=(num_images, num_classes)) * 2 + np.arange(num_classes) / 2)
    probabilities = shares / shares.sum(axis=1, keepdims=True)
    true = (probabilities.cumsum(axis=1) < generator.random((num_images, 1))).sum(axis=1)
    true = np.where(true == num_classes - 1, 1, true) if num_classes > 2 else true
    predicted, score = probabilities.argmax(axis=1), Score(num_images, 0, np.nan)
    score = replace(score, num_correct=int((true == predicted).sum()))
    return replace(count_classes("drawn", score, true, predicted, CLASSES[:num_classes]), probabilities=probabilities)


def given(found: Evaluation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probabilities and true classes as tensors."""
    assert found.probabilities is not None
    return torch.from_numpy(found.probabilities), torch.from_numpy(found.true)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_scores_over_all_classes_are_those_of_torchmetrics(num_classes: int, peer: Peer) -> None:
    theirs, found = peer("torchmetrics.functional.classification"), drawn(num_classes)
    probabilities, true = given(found)
    expected = {
        "accuracy": theirs.multiclass_accuracy(probabilities, true, num_classes, average="micro"),
        "kappa": theirs.multiclass_cohen_kappa(probabilities, true, num_classes),
        "mcc": theirs.multiclass_matthews_corrcoef(probabilities, true, num_classes),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(float(value), abs=1e-6), name
    matrix = theirs.multiclass_confusion_matrix(probabilities, true, num_classes)
    np.testing.assert_array_equal(found.confusion, matrix.numpy())
    assert found.top_k == pytest.approx(
        {k: float(theirs.multiclass_accuracy(probabilities, true, num_classes, average="micro", top_k=k))
         for k in found.top_k}
    )  # fmt: skip


def test_a_class_that_is_predicted_without_occurring_counts_as_f1_0_only_in_torchmetrics(peer: Peer) -> None:
    """Their means also have the classes without images that are predicted; ours have the classes that occur.

    Otherwise, data that has only some of the classes would get a lower macro F1 for each class that it lacks, and a
    lower balanced accuracy, although the recall of such a class is not defined.
    """
    theirs, found = peer("torchmetrics.functional.classification"), drawn()
    probabilities, true = given(found)
    occurs = np.bincount(found.true, minlength=4) > 0
    assert occurs.tolist() == [True, True, True, False]
    assert (found.predicted == 3).any()
    f1, recall = (
        score(probabilities, true, 4, average="none").numpy()
        for score in (theirs.multiclass_f1_score, theirs.multiclass_recall)
    )
    np.testing.assert_allclose([row.f1 for row in found.classes], f1, atol=1e-6)
    assert found.macro_f1 == pytest.approx(f1[occurs].mean(), abs=1e-6)
    assert float(theirs.multiclass_f1_score(probabilities, true, 4)) == pytest.approx(f1.mean(), abs=1e-6)
    assert found.score.as_dict()["balanced_accuracy"] == pytest.approx(recall[occurs].mean(), abs=1e-6)
    assert f1[3] == recall[3] == 0


@pytest.mark.parametrize("num_classes", [2, 4])
def test_average_precision_and_roc_auc_are_those_of_torchmetrics(num_classes: int, peer: Peer) -> None:
    theirs, found = peer("torchmetrics.functional.classification"), drawn(num_classes)
    expected = theirs.multiclass_average_precision(*given(found), num_classes, average="none")
    rows = [
        (row.average_precision, value) for row, value in zip(found.classes, expected, strict=True) if row.num_images
    ]
    assert len(rows) == min(num_classes, 3)
    np.testing.assert_allclose(*zip(*rows, strict=True), atol=1e-6)
    if found.curves is not None:
        rarer = found.names.index(found.curves["class"])
        probabilities, true = given(found)
        area = theirs.binary_auroc(probabilities[:, rarer], (true == rarer).long())
        assert found.curves["roc_auc"] == pytest.approx(float(area), abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_calibration_error_is_that_of_torchmetrics_and_netcal(num_classes: int, peer: Peer) -> None:
    theirs, found = peer("torchmetrics.functional.classification"), drawn(num_classes)
    probabilities, true = given(found)
    confidence, is_correct = top_label(probabilities.numpy(), found.true)
    ours = calibration_error(confidence, is_correct)
    torchmetrics = theirs.multiclass_calibration_error(probabilities, true, num_classes, 15)
    assert ours == pytest.approx(float(torchmetrics), abs=1e-6)
    assert found.calibration is not None
    assert found.calibration.ece == ours > 0.02
    # As binary, since netcal takes two classes for the probability of the second one.
    netcal = peer("netcal.metrics").ECE(bins=15).measure(confidence, is_correct.astype(int))
    assert ours == pytest.approx(netcal, abs=1e-9)


def test_a_confidence_of_exactly_1_is_in_the_last_bin_as_in_netcal_and_in_another_one_in_torchmetrics(
    peer: Peer,
) -> None:
    """Bins of netcal include their lower end, and the last one also 1; ours include their upper end.

    torchmetrics puts 1 into a sixteenth bin, where errors do not cancel those of the last one.
    """
    theirs = peer("torchmetrics.functional.classification")
    confidence, is_correct = np.array([1.0, 0.95, 0.95, 0.5]), np.array([1.0, 0.0, 1.0, 1.0])
    ours = calibration_error(confidence, is_correct)
    assert ours == pytest.approx((0.5 + 0.9) / 4)
    assert ours == pytest.approx(peer("netcal.metrics").ECE(bins=15).measure(confidence, is_correct.astype(int)))
    probabilities = torch.from_numpy(np.stack([confidence, 1 - confidence], axis=1))
    found = theirs.multiclass_calibration_error(probabilities, torch.from_numpy(1 - is_correct).long(), 2, 15)
    assert float(found) == pytest.approx((0.5 + 0.0 + 0.9) / 4)


def test_scores_of_several_labels_are_those_of_torchmetrics(peer: Peer) -> None:
    """Thresholds that differ by label are applied before; torchmetrics has one for all labels."""
    theirs, generator = peer("torchmetrics.functional.classification"), np.random.default_rng(1)
    true = generator.random((200, 3)) < (0.1, 0.4, 0.7)
    probabilities = (true * 0.3 + generator.random((200, 3)) * 0.7).astype(np.float32)
    thresholds = (0.6, 0.5, 0.35)
    found = score_each_label("drawn", probabilities, true, 0.5, CLASSES[:3], thresholds)
    likely, wanted = torch.from_numpy(probabilities), torch.from_numpy(true.astype(np.int64))
    predicted = torch.from_numpy((probabilities.astype(np.float64) >= thresholds).astype(np.int64))
    assert score_labels(probabilities, true, 0.5, thresholds).accuracy == found.accuracy
    expected = {
        "accuracy": theirs.multilabel_exact_match(predicted, wanted, 3),
        "mean_average_precision": theirs.multilabel_average_precision(likely, wanted, 3),
        "micro_f1": theirs.multilabel_f1_score(predicted, wanted, 3, average="micro"),
        "macro_f1": theirs.multilabel_f1_score(predicted, wanted, 3, average="macro"),
    }
    for name, value in expected.items():
        assert found.score.as_dict()[name] == pytest.approx(float(value), abs=1e-6), name
    for name, score in (("precision", theirs.multilabel_precision), ("recall", theirs.multilabel_recall)):
        values = score(predicted, wanted, 3, average="none")
        np.testing.assert_allclose([getattr(row, name) for row in found.classes], values, atol=1e-6)
    areas = theirs.multilabel_auroc(likely, wanted, 3, average="none")
    np.testing.assert_allclose([row.roc_auc for row in found.classes], areas, atol=1e-6)
