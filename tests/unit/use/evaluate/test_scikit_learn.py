"""A run, trained here -> every number of `vitreous evaluate RUN --json` and `report.json` is scikit-learn's."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from tests.pictures import write_pictures

from vitreous.cli.main import main
from vitreous.use.run import Run

COLORS = {"good": ((150, 90, 60), 90), "defect": ((90, 140, 60), 30), "rare": ((90, 80, 150), 12)}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_scores_are_those_of_scikit_learn_on_predictions_csv_and_on_the_table_of_predict(
    num_classes: int, run_on: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colors = dict(list(COLORS.items())[:num_classes])
    data = write_pictures(tmp_path / "set", colors, seed=3, name="{}.png", noise=30, tint=45)
    run = run_on(data, name="judged")
    assert main(["evaluate", str(run.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows, names = read(run.path / "predictions.csv"), list(run.classes)
    true, predicted = ([row[column] for row in rows] for column in ("true", "predicted"))
    assert main(["predict", str(run.path), *(row["path"] for row in rows), "--out", str(tmp_path / "all.csv")]) == 0
    likely = read(tmp_path / "all.csv")
    assert [row["path"] for row in likely] == [row["path"] for row in rows]
    probabilities = np.array([[float(row[f"p_{name}"]) for name in names] for row in likely])
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # they are rounded in the file

    assert len(set(true)) == num_classes
    assert 0 < found["accuracy"] < 1, "the test needs mistakes"
    expected: dict[str, Any] = {
        "accuracy": metrics.accuracy_score(true, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, predicted),
        "macro_f1": metrics.f1_score(true, predicted, average="macro", labels=names, zero_division=0),
        "kappa": metrics.cohen_kappa_score(true, predicted),
        "mcc": metrics.matthews_corrcoef(true, predicted),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    matrix = metrics.confusion_matrix(true, predicted, labels=names)
    assert found["confusion"] == matrix.tolist()
    calibration = found["calibration"]
    assert calibration["nll"] == pytest.approx(metrics.log_loss(true, probabilities, labels=names), abs=1e-5)
    assert calibration["brier"] == pytest.approx(
        metrics.brier_score_loss(true, probabilities, labels=names, scale_by_half=False), abs=1e-5
    )
    each = metrics.precision_recall_fscore_support(true, predicted, labels=names, zero_division=np.nan)
    for position, key in enumerate(("precision", "recall", "f1", "num_images")):
        ours = [np.nan if row[key] is None else row[key] for row in found["classes"]]
        np.testing.assert_allclose(ours, each[position], err_msg=key)
    for number, name in enumerate(names):
        is_true = np.array(true) == name
        area = metrics.average_precision_score(is_true, probabilities[:, number])
        assert found["classes"][number]["average_precision"] == pytest.approx(area, abs=1e-4)
    if num_classes == 2:
        rarer = names.index(found["curves"]["class"])
        area = metrics.roc_auc_score(np.array(true) == names[rarer], probabilities[:, rarer])
        assert found["curves"]["roc_auc"] == pytest.approx(area, abs=1e-4)
        assert true.count(names[rarer]) < len(true) / 2

    sections = json.loads((run.path / "report.json").read_text(encoding="utf-8"))["sections"]
    for section, same in (("verdict", ("accuracy", "balanced_accuracy")),
                          ("classes", ("confusion", "classes", "curves"))):  # fmt: skip
        assert {name: sections[section][name] for name in same} == {name: found[name] for name in same}
    assert sections["calibration"]["nll"] == calibration["nll"]
