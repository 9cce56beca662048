"""A run on images with several labels: the whole way from the table to predictions, scores and report."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn import metrics

from vitreous.cli.main import main
from vitreous.data.doctor.examine import examine
from vitreous.data.sources import open_source
from vitreous.data.survey.facts import survey
from vitreous.errors import ConfigError, DamagedFileError, DataError
from vitreous.recipe.files import read_config
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run
from vitreous.wording import listed

NAMES = ("Äpfel", "<b>&", "two words")


@pytest.fixture(scope="session")
def table(photos: Path) -> Path:
    """A table next to the photos: labels that agree with the class folders, and some more or none."""
    rng = np.random.default_rng(0)
    path = photos.parent / "tags.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "labels"))
        for number, image in enumerate(sorted(photos.rglob("*.png"))):
            own = image.parent.name.replace('<b>&"', "<b>&")
            labels = {own, *(name for name in NAMES if rng.random() < 0.3)} if number % 7 else ()
            writer.writerow((image.relative_to(path.parent).as_posix(), ";".join(sorted(labels))))
    return path


@pytest.fixture(scope="session")
def tagged(run_on: Callable[..., Run], table: Path) -> Run:
    """A finished run on the table; do not modify."""
    return run_on(table, name="tagged", **{"train.epochs": 6.0})


def test_the_anatomy_explains_each_label_on_images_that_have_it(tagged: Run, table: Path) -> None:
    with table.open(encoding="utf-8", newline="") as file:
        labels = {"/".join(Path(row["path"]).parts[-2:]): row["labels"].split(";") for row in csv.DictReader(file)}
    found = tagged.explain_model()
    assert all(part.numbers is not None for part in found.parts)
    assert (found["removal"].numbers or {})["accuracy"] == pytest.approx(tagged.evaluate().accuracy)
    for query in (found["nearest"].numbers or {})["queries"]:
        (prediction,) = tagged.predict(query["image"])
        assert query["predicted"] == (listed(prediction.label.split(";")) or "no label")
    classes = found["classes"].numbers or {}
    assert classes
    for name, patches in classes.items():
        for patch in patches:
            assert name in labels["/".join(Path(patch["image"]).parts[-2:])]


def test_plan_says_first_that_the_table_is_multilabel(tagged: Run) -> None:
    plan = (tagged.path / "plan.md").read_text(encoding="utf-8")
    assert re.search(
        r"^- tags, multi-label: .*; any number of labels per image, because \d+ of 72 rows hold", plan, re.M
    )
    assert read_config(tagged.path / "config.yaml").data.task == "multilabel"
    assert read_config(tagged.path / "config.yaml").objective.loss == "multilabel"


def test_predictions_have_every_label_that_reaches_its_threshold(tagged: Run, photos: Path) -> None:
    predictions = tagged.predict(photos)
    thresholds = tagged.metadata["thresholds"]
    numbers = set()
    for prediction in predictions:
        reached = [n for p, t, n in zip(prediction.probabilities, thresholds, tagged.classes, strict=True) if p >= t]
        assert sorted(prediction.labels) == sorted(reached)
        assert prediction.label == ";".join(reached)
        assert prediction.probability == max(prediction.probabilities)
        numbers.add(len(reached))
    assert len(numbers) > 1, "the test needs images with different numbers of labels"
    assert not any(np.isclose(sum(prediction.probabilities), 1) for prediction in predictions)


def test_evaluation_is_that_of_scikit_learn(tagged: Run, table: Path) -> None:
    found = tagged.evaluate(table)
    assert isinstance(found, LabelEvaluation)
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    true = np.array([[name in row["labels"].split(";") for name in tagged.classes] for row in rows])
    predictions = tagged.predict([table.parent / row["path"] for row in rows])
    probabilities = np.array([prediction.probabilities for prediction in predictions])
    predicted = np.array([[name in prediction.labels for name in tagged.classes] for prediction in predictions])
    assert found.accuracy == metrics.accuracy_score(true, predicted)
    assert found.score.micro_f1 == pytest.approx(metrics.f1_score(true, predicted, average="micro"))
    assert found.score.mean_average_precision == pytest.approx(
        metrics.average_precision_score(true, probabilities), abs=1e-4
    )
    for number, row in enumerate(found.classes):
        assert row.roc_auc == pytest.approx(metrics.roc_auc_score(true[:, number], probabilities[:, number]), abs=1e-4)
        expected = metrics.precision_recall_fscore_support(
            true[:, number], predicted[:, number], average="binary", zero_division=0.0
        )
        assert (row.precision or 0, row.recall, row.f1) == pytest.approx(expected[:3])
        assert (row.num_images, row.num_predicted) == (true[:, number].sum(), predicted[:, number].sum())
        assert row.curves is not None
        assert row.curves["roc_auc"] == row.roc_auc
        low, high = row.recall_interval_95 or (2.0, 0.0)
        assert low <= row.recall <= high


def test_costs_of_labels_change_from_which_probability_on_each_is_predicted(
    tagged: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tagged.evaluate(cost={("Äpfel", "miss"): 9, ("two words", "false-alarm"): 3})
    assert isinstance(found, LabelEvaluation)
    assert found.decision is not None
    limits = dict(zip(tagged.classes, found.decision["threshold"], strict=True))
    assert limits == pytest.approx({"Äpfel": 0.1, "<b>&": 0.5, "two words": 0.75})
    with (tagged.path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cost = 0
    for row in rows:
        for name, limit in limits.items():
            has, gets = name in row["true"].split(";"), float(row[f"p_{name}"]) >= limit
            cost += has * (not gets) * (9 if name == "Äpfel" else 1)
            cost += gets * (not has) * (3 if name == "two words" else 1)
    assert found.decision["cost_after"] == pytest.approx(cost / len(rows))
    counts = {row.name: row.num_predicted for row in found.decision["classes"]}
    assert counts == {name: sum(float(row[f"p_{name}"]) >= limits[name] for row in rows) for name in limits}
    words = ["evaluate", str(tagged.path), "--cost", "Äpfel:miss=9", "--cost", "two words:false-alarm=3"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"least expected cost: {cost / len(rows):.4g} per image instead of " in said
    assert said.count(" threshold ") == 2
    assert main([*words, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["cost"]
    assert [row["num_predicted"] for row in written["classes"]] == [counts[name] for name in tagged.classes]
    assert written["cost_before"] == found.decision["cost_before"]
    assert json.loads(json.dumps(tagged.evaluate().as_dict()))["cost"] is None


def test_held_out_scores_agree_in_metadata_evaluation_and_predictions_csv(tagged: Run) -> None:
    found, written = tagged.evaluate(), tagged.metrics["test"]
    assert {key: value for key, value in found.score.as_dict().items() if key != "loss"} == {
        key: value for key, value in written.items() if key != "loss"
    }
    assert tagged.accuracy == written["accuracy"]
    with (tagged.path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["true"] == row["predicted"] for row in rows) == written["num_correct"]
    assert len(rows) == written["num_images"]
    assert any(row["true"] == "" for row in rows)


def test_report_shows_map_and_each_label(tagged: Run) -> None:
    page = (tagged.path / "report.html").read_text(encoding="utf-8")
    average = tagged.metrics["test"]["mean_average_precision"]
    low, high = tagged.metrics["test"]["mean_average_precision_interval_95"]
    interval = f"(95% interval {low:.3f} to {high:.3f})"
    assert f'<span class="headline">{average:.3f}</span> mAP {interval} on the test images of tags' in page
    assert "Scores per label" in page
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page


def test_command_line_shows_labels_scores_and_json(
    tagged: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(photos.rglob("*.png"))
    assert main(["predict", str(tagged.path), str(image), "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)
    assert described["labels"] == list(tagged.predict(image)[0].labels)
    assert main(["evaluate", str(tagged.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"][0]["threshold"] == tagged.metadata["thresholds"][0]
    assert main(["evaluate", str(tagged.path)]) == 0
    assert capsys.readouterr().out.startswith("mAP 0.")


def test_label_without_a_prediction_or_an_image_has_no_score(tagged: Run, table: Path, tmp_path: Path) -> None:
    rows = [line.replace("Äpfel", "two words") for line in table.read_text(encoding="utf-8").splitlines()]
    other = table.parent / "others.csv"
    other.write_text("\n".join(rows), encoding="utf-8")
    row = next(row for row in tagged.evaluate(other).classes if row.name == "Äpfel")
    assert (row.num_images, row.average_precision, row.roc_auc, row.recall) == (0, None, None, None)


def test_data_with_one_label_per_image_is_not_scored_as_if_it_had_several(tagged: Run, photos: Path) -> None:
    with pytest.raises(DataError, match="has one label per image; list the images in a table"):
        tagged.evaluate(photos)


def test_thresholds_that_do_not_fit_the_classes_are_refused(tagged: Run) -> None:
    for thresholds in ([0.5], [0.5, 0.5, float("nan")], [0.5, 0.5, 2.0]):
        with pytest.raises(DamagedFileError, match=r"for 3 labels, or not all in \[0, 1\]"):
            Predictor.from_model(tagged.model, tagged.metadata | {"thresholds": thresholds}, Path("x"))


def test_files_of_older_runs_mean_one_label_per_image(run: Run, tmp_path: Path) -> None:
    config = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    assert config["data"].pop("task") == "single"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert read_config(tmp_path / "config.yaml").data.task == "single"
    assert Predictor.load(run.path).thresholds is None
    assert run.predict(run.path / "example.png")[0].labels == (run.predict(run.path / "example.png")[0].label,)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"objective.loss": "bce"}, "objective.loss=bce: learns one label per image, but data.task=multilabel"),
        (
            {"data.sampler": "balanced"},
            "data.sampler=balanced: an image with several labels belongs to no single class",
        ),
    ],
)
def test_keys_for_one_label_per_image_are_refused(
    run_on: Callable[..., Run], table: Path, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_on(table, **keys)


def test_doctor_compares_sets_of_labels_and_judges_no_single_label(table: Path) -> None:
    surveyed = survey(open_source(table))
    found = examine(surveyed)
    assert found.numbers["labels"]["verdict"] == "not judged: images have several labels"
    train = surveyed.source.labels[surveyed.indices["train"]]
    assert [count["train"] for count in found.numbers["class_images"].values()] == train.sum(axis=0).tolist()
    assert not {finding.kind for finding in found.findings} & {"few-images", "uneven-classes", "doubtful-labels"}
