"""Summary of a series: pooled accuracy, spread and intervals, against numpy and scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from tests.unit.use.conftest import KEYS

import vitreous as vt
from vitreous.errors import NotARunError
from vitreous.training.fit.class_counts import ClassCounts
from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.multilabel import LabelScore
from vitreous.training.folder.run_folder import SeriesFolder
from vitreous.use.series.page import sentences, table, write_summary
from vitreous.use.series.summary import Row, Summary, t_interval

SHORT = {**KEYS, "data.val_ratio": 0.2, "train.epochs": 0.5}


@pytest.fixture(scope="module")
def series(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> vt.Series:
    """A series of two folds and two seeds; do not modify."""
    config = {key: value for key, value in SHORT.items() if key != "data.test_ratio"}
    return vt.train(photos, folds=2, seeds=2, out=tmp_path_factory.mktemp("series") / "both", config=config)


def made_up(rights: list[list[int]], num_images: list[int]) -> Summary:
    """Make a summary from the number of correct images in each fold, for each seed."""
    folds = len(num_images) if len(num_images) > 1 else 0
    rows = [
        Row(f"fold-{fold}-seed-{seed}", fold if folds else None, seed, "test", Score(num_images[fold], right, 0.5))
        for seed, of_seed in enumerate(rights) for fold, right in enumerate(of_seed)
    ]  # fmt: skip
    return Summary("made-up", "digits", len(rights) * len(num_images), folds, tuple(rows))


def test_each_image_counts_once_over_all_folds() -> None:
    found = made_up([[30, 45, 10]], [40, 50, 20])
    pooled = found.by_seed()[0]
    assert (pooled.num_images, pooled.num_correct) == (110, 85)
    assert found.accuracy == pytest.approx(85 / 110)
    of_runs = np.array([30 / 40, 45 / 50, 10 / 20])
    assert (found.over_runs().mean, found.over_runs().std) == pytest.approx((of_runs.mean(), of_runs.std(ddof=1)))
    assert found.over_seeds() is None


def test_interval_over_seeds_equals_student_s() -> None:
    found = made_up([[30], [36], [33], [31]], [40]).over_seeds()
    assert found is not None
    accuracies = np.array([30, 36, 33, 31]) / 40
    expected = stats.t.interval(0.95, 3, loc=accuracies.mean(), scale=accuracies.std(ddof=1) / 2)
    np.testing.assert_allclose(found[1], expected, rtol=1e-12)
    assert found[0].std == pytest.approx(accuracies.std(ddof=1))
    assert t_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


def test_validation_accuracy_is_called_optimistic_only_if_it_chose_the_weights() -> None:
    found = made_up([[30]], [40])
    for chosen in (False, True):
        rows = (Row("seed-0", None, 0, "val", Score(40, 30, 0.5), chosen_on_it=chosen),)
        said = sentences(Summary(found.name, found.data, 1, 0, rows))
        assert any("so it is optimistic" in sentence for sentence in said) == chosen


def test_seed_with_a_missing_fold_is_reported_and_not_pooled() -> None:
    whole = made_up([[30, 45], [31, 40]], [40, 50])
    part = Summary(whole.name, whole.data, whole.num_planned, whole.num_folds, whole.rows[:3])
    assert set(part.by_seed()) == {0}
    assert sentences(part)[0] == "1 of 4 runs has no accuracy"
    none = Summary("x", "digits", 4, 2, ())
    assert sentences(none) == ["accuracy unknown: no run is finished, or the runs have no test images"]
    assert none.as_dict()["accuracy"] is None


def test_sentences_give_accuracy_spread_and_interval() -> None:
    low, high = Score(90, 75, 0.5).interval
    assert sentences(made_up([[30, 45]], [40, 50])) == [
        "accuracy over all 2 folds: 83.3% (75 of 90 images correct, each tested once by a model that was not trained "
        f"on it; 95% interval {100 * low:.1f}% to {100 * high:.1f}%)",
        "accuracy of single folds: 82.5% ± 10.6% (mean ± standard deviation; 75.0% to 90.0%)",
    ]
    assert "accuracy over 2 seeds: 82.5% ± 3.5% (mean ± standard deviation; 80.0% to 85.0%)" in sentences(
        made_up([[32], [34]], [40])
    )


def labeled(precisions: list[list[float]]) -> Summary:
    """Make a summary of runs with several labels per image, from the mAP of each fold, for each seed."""
    folds = len(precisions[0]) if len(precisions[0]) > 1 else 0
    rows = [
        Row(f"fold-{fold}-seed-{seed}", fold if folds else None, seed, "test",
            LabelScore(num_images=40, num_correct=20, loss=0.5, mean_average_precision=value, micro_f1=0.5,
                       macro_f1=0.5, map_interval=(value - 0.1, value + 0.05)))
        for seed, of_seed in enumerate(precisions) for fold, value in enumerate(of_seed)
    ]  # fmt: skip
    return Summary("made-up", "tags", len(rows), folds, tuple(rows))


def test_mean_average_precision_has_its_columns_and_comes_first() -> None:
    found = labeled([[0.7, 0.8]])
    heading, first, _ = table(found)
    assert heading == ("run", "images", "mAP", "95% interval", "correct", "accuracy", "95% interval")
    assert first[:4] == ("fold-0-seed-0", "40", "0.700", "0.600 to 0.750")
    assert sentences(found)[0] == "mAP of single folds: 0.750 ± 0.071 (mean ± standard deviation; 0.700 to 0.800)"
    assert found.as_dict()["by_seed"]["0"]["mean_average_precision"] == pytest.approx(0.75)


def test_mean_average_precision_over_seeds_is_that_of_the_means_of_their_folds() -> None:
    found = labeled([[0.7, 0.8], [0.6, 0.8], [0.9, 0.7]])
    values = np.array([0.75, 0.7, 0.8])
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=values.std(ddof=1) / 3**0.5)
    said = f"mAP over 3 seeds: 0.750 ± {values.std(ddof=1):.3f} (mean ± standard deviation; 0.700 to 0.800)"
    assert sentences(found)[0] == f"{said}; 95% interval of the mean over seeds: {low:.3f} to {high:.3f}"
    by_seed = found.as_dict()["by_seed"].values()
    assert [score["mean_average_precision"] for score in by_seed] == pytest.approx(values)


def test_series_without_several_labels_has_no_mean_average_precision() -> None:
    found = made_up([[30, 45]], [40, 50])
    assert "mAP" not in table(found)[0]
    assert not any("mAP" in sentence for sentence in sentences(found))
    assert "mean_average_precision" not in found.as_dict()["by_seed"]["0"]


def test_baseline_and_balanced_accuracy_are_those_over_all_folds() -> None:
    one = ClassCounts.of(("bad", "good"), [0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1])
    other = ClassCounts.of(("bad", "good"), [0, 1, 1, 1], [1, 1, 1, 0])
    rows = [
        Row(f"fold-{fold}", fold, 0, "test", Score(sum(counts.images), sum(counts.correct), 0.5, counts))
        for fold, counts in enumerate((one, other))
    ]
    summary = Summary("made-up", "digits", 2, 2, tuple(rows))
    true, predicted = [0, 0, 1, 1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    balanced = balanced_accuracy_score(true, predicted)
    assert sentences(summary)[-1] == (
        "no better than always predicting 'good', which reaches 70.0%; balanced accuracy (mean recall of the classes) "
        f"{balanced:.1%}"
    )
    assert summary.as_dict()["by_seed"]["0"]["balanced_accuracy"] == pytest.approx(balanced)


def test_series_has_runs_accuracy_and_summary(series: vt.Series) -> None:
    summary = series.summary
    assert [run.path.name for run in series.runs] == [row.name for row in summary.rows]
    assert [run.accuracy for run in series.runs] == [row.score.accuracy for row in summary.rows]
    assert [score.num_images for score in summary.by_seed().values()] == [72, 72]
    assert series.accuracy == pytest.approx(np.mean([score.accuracy for score in summary.by_seed().values()]))
    assert all((run.path / "report.html").is_file() for run in series.runs)


def test_files_of_a_series_contain_its_summary(series: vt.Series) -> None:
    written = json.loads((series.path / "summary.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(series.summary.as_dict()))
    assert (written["num_finished"], written["num_folds"], written["data"]) == (4, 2, "my photos")
    page = (series.path / "summary.md").read_text(encoding="utf-8")
    for row in table(series.summary):
        assert f"| {' | '.join(row)} |\n" in page
    assert write_summary(SeriesFolder(series.path)) == series.summary


def test_series_are_compared_over_images_and_seeds(series: vt.Series) -> None:
    found = vt.compare(series, series.path)
    assert (found.num_images, found.seeds) == (72, (0, 1))
    assert (found.difference, found.interval_seeds_95, found.p_value) == (0, (0, 0), None)
    assert found.accuracy_a == pytest.approx(series.accuracy)


def test_run_is_not_a_series_and_series_is_not_a_run(run: vt.Run, series: vt.Series) -> None:
    with pytest.raises(NotARunError, match=r"has no series\.json"):
        vt.Series(run.path)
    with pytest.raises(
        NotARunError, match=r"both: is a series with 4 finished runs; give one of them, e\.g\. .*fold-0-seed-0"
    ):
        vt.Run(series.path)
