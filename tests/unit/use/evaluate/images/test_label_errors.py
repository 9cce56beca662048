"""Label errors of a run: images are predicted by models that were not trained on them, and changed labels found."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.pictures import write_pictures
from tests.unit.use.conftest import KEYS

from vitreous.data.doctor.mislabeled import find_doubtful_labels, label_margins
from vitreous.errors import ConfigError, NotARunError, RunError
from vitreous.training.folder.outputs import read_outputs
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.series import run_series
from vitreous.use.doctor.examiner import examine_run
from vitreous.use.evaluate.images.label_errors import predict_unseen
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.run import Run

CHANGED = ("red/blue 3.png", "red/blue 7.png", "blue/red 5.png")


@pytest.fixture(scope="module")
def mislabeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 red and 30 blue images, of which three are in the folder of the other class."""
    root = tmp_path_factory.mktemp("labels") / "set"
    write_pictures(root, {"red": ((200, 60, 50), 40), "blue": ((60, 70, 220), 30)}, seed=7, name="{}.png", noise=9)
    for name in ("blue 3", "blue 7"):
        (root / "blue" / f"{name.split()[1]}.png").rename(root / "red" / f"{name}.png")
    (root / "red" / "5.png").rename(root / "blue" / "red 5.png")
    return root


@pytest.fixture(scope="module")
def folds(mislabeled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series of three folds on these images; do not modify."""
    values = KEYS | {"train.epochs": 25.0, "optim.lr": 0.01, "data.val_ratio": 0.2}
    out = tmp_path_factory.mktemp("series") / "folds"
    return run_series(TrainRequest(data=str(mislabeled), values=values, out=out, folds=3), lambda run: None).path


def test_each_image_is_predicted_by_the_fold_that_tested_it(folds: Path) -> None:
    surveyed, indices, probabilities = predict_unseen(folds)
    np.testing.assert_array_equal(indices, np.arange(70))
    seen = np.zeros(70, dtype=np.int64)
    for fold in range(3):
        folder = RunFolder(folds / f"fold-{fold}")
        found = outputs_of_run(folder)["test"]
        np.testing.assert_allclose(probabilities[found.indices], found.probabilities, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(found.numbers, surveyed.source.labels[found.indices])
        seen[read_outputs(folder.outputs)["test"].indices] += 1
    np.testing.assert_array_equal(seen, 1)


def test_changed_labels_are_found_with_the_right_class(folds: Path) -> None:
    surveyed, indices, probabilities = predict_unseen(folds)
    doubts = find_doubtful_labels(probabilities, surveyed.source.labels[indices], are_probabilities=True)
    found = {surveyed.source.key(int(indices[position])) for position in doubts.positions}
    assert found == set(CHANGED)
    assert all(name != surveyed.source.key(int(indices[p])).split("/")[0] for p, name in zip(
        doubts.positions, (surveyed.source.classes[c] for c in doubts.likely_classes), strict=True))  # fmt: skip


def test_report_on_a_series_lists_them_and_says_who_has_judged(folds: Path) -> None:
    report = examine_run(folds, lambda kind, fields: None, "cpu")
    (finding,) = (finding for finding in report.examination.findings if finding.kind == "doubtful-labels")
    assert {"/".join(Path(sample.where).parts[-2:]) for (sample,) in finding.samples} == set(CHANGED)
    assert finding.detail.startswith("A model that was not trained on the image classifies 9")
    assert report.details["labels"]["basis"] == "a model that was not trained on the image"
    assert not any(finding.kind == "outliers" for finding in report.examination.findings)


def test_single_run_predicts_held_out_images_itself_and_others_by_heads(
    run_on: Callable[..., Run], mislabeled: Path
) -> None:
    run = run_on(mislabeled, name="single", **{"train.epochs": 20.0, "optim.lr": 0.01})
    surveyed, indices, probabilities = predict_unseen(run.path)
    np.testing.assert_array_equal(indices, np.arange(70))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    for split, found in outputs_of_run(RunFolder(run.path)).items():
        np.testing.assert_array_equal(np.sort(found.indices), np.sort(surveyed.indices[split]))
        np.testing.assert_allclose(probabilities[found.indices], found.probabilities, rtol=0, atol=1e-12)


def test_run_without_held_out_images_is_judged_by_heads_only(blind_run: Run) -> None:
    _, indices, probabilities = predict_unseen(blind_run.path)
    assert len(indices) == 72
    assert np.isfinite(probabilities).all()


def test_predictions_of_a_run_are_the_same_each_time(run: Run) -> None:
    first, second = predict_unseen(run.path), predict_unseen(run.path)
    np.testing.assert_array_equal(first[2], second[2])


def test_unfinished_and_changed_runs_are_refused(
    unfinished: Path, run_on: Callable[..., Run], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotARunError, match=r"is not finished; continue it with"):
        predict_unseen(unfinished)
    data = Path(shutil.copytree(photos, tmp_path / "photos"))
    run = run_on(data, name="changing", **{"train.epochs": 0.3})
    (data / "two words" / "bild 3 ü.png").unlink()
    with pytest.raises(RunError, match=r"its data has changed since the run started"):
        predict_unseen(run.path)


def test_too_many_probabilities_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.use.evaluate.images.label_errors.MOST_VALUES", 200)
    with pytest.raises(ConfigError, match=r"its labels are not judged \(too many images times classes\); leave out"):
        predict_unseen(run.path)


# The ranking.


def test_margins_are_relative_to_the_thresholds_of_the_classes() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]])
    thresholds = np.array([0.7, 0.4, 0.8])
    expected = [np.log(max((p / thresholds)[np.arange(3) != label]) / (p / thresholds)[label])
                for p, label in zip(probabilities, labels, strict=True)]  # fmt: skip
    np.testing.assert_allclose(label_margins(probabilities, labels), expected)


def test_label_that_a_model_excludes_comes_before_one_that_it_only_finds_less_likely() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    probabilities = np.array([[1.0, 0.0], [0.98, 0.02], [0.1, 0.9], [0.0, 1.0], [0.2, 0.8], [0.0, 1.0]])
    assert np.argsort(-label_margins(probabilities, labels)).tolist()[:2] == [3, 2]
    assert np.isfinite(label_margins(probabilities, labels)).all()


def test_wrong_label_comes_before_correct_ones_of_a_class_that_is_hard_to_recognize() -> None:
    draw = np.random.default_rng(0)
    own = np.concatenate([draw.uniform(0.85, 0.99, 50), draw.uniform(0.35, 0.55, 50)])
    labels = np.repeat([0, 1], 50)
    probabilities = np.empty((100, 2))
    probabilities[np.arange(100), labels], probabilities[np.arange(100), 1 - labels] = own, 1 - own
    probabilities[7] = 0.4, 0.6  # wrong: others of class 0 get more than 0.85
    assert label_margins(probabilities, labels).argmax() == 7
    unadjusted = probabilities[np.arange(100), 1 - labels] - own
    assert unadjusted.argmax() != 7


def test_classes_that_are_taken_for_each_other_are_reported() -> None:
    draw = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2, 3], 60)
    centers = np.array(
        [[0.5, 0.45, 0.03, 0.02], [0.45, 0.5, 0.03, 0.02], [0.02, 0.02, 0.94, 0.02], [0.1, 0.1, 0.1, 0.7]]
    )
    probabilities = np.clip(centers[labels] + draw.normal(0, 0.05, (240, 4)), 1e-3, None)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    doubts = find_doubtful_labels(probabilities, labels, are_probabilities=True)
    assert doubts.confused == ((0, 1),)
    assert find_doubtful_labels(probabilities.astype(np.float32), labels).confused == ()
