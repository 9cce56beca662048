"""Predictions say how unlike the training images an image is, if the run can say it."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.cli.look.predict import labels_line
from vitreous.cli.main import main
from vitreous.errors import DamagedFileError
from vitreous.training.folder.outputs import read_outputs
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.predict.predictor import Prediction, Predictor
from vitreous.use.predict.table import write_table
from vitreous.use.run import Run

NOISE = np.random.default_rng(0).integers(0, 256, size=(9, 14, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictor(run: Run) -> Predictor:
    return Predictor.load(run.path)


def test_validation_images_are_spread_over_all_percentiles(run: Run, photos: Path, predictor: Predictor) -> None:
    from vitreous.data.sources import open_source

    source, indices = open_source(str(photos)), read_outputs(RunFolder(run.path).outputs)["val"].indices
    found = predictor.predict([source.describe(int(index)) for index in indices])
    known = predictor.familiarity
    assert known is not None
    assert len(known.known) == len(indices)
    expected = np.arange(1, len(indices) + 1) / (len(indices) + 1)
    np.testing.assert_allclose(sorted(p.unfamiliar or 0 for p in found), expected, atol=0.002)
    assert [p.is_unfamiliar for p in found] == [(p.unfamiliar or 0) >= 0.95 for p in found]


def test_probabilities_are_those_without_the_file(run: Run, photos: Path, tmp_path: Path, predictor: Predictor) -> None:
    shutil.copy(run.path / "model.safetensors", tmp_path)
    lone = Predictor.load(tmp_path / "model.safetensors")
    images = sorted(photos.rglob("*.png"))
    with_file, without = predictor.predict(images), lone.predict(images)
    assert [replace(prediction, unfamiliar=None) for prediction in with_file] == without
    assert all(prediction.unfamiliar is not None for prediction in with_file)
    assert not any(prediction.is_unfamiliar for prediction in without)


def test_a_model_copied_with_its_file_flags_the_same(run: Run, photos: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "familiarity.safetensors"):
        shutil.copy(run.path / name, tmp_path)
    images = sorted(photos.rglob("*.png"))[::5]
    assert Predictor.load(tmp_path / "model.safetensors").predict(images) == run.predict(images)


def test_the_percentile_does_not_depend_on_the_other_images(run: Run, photos: Path, predictor: Predictor) -> None:
    images = [*sorted(photos.rglob("*.png")), NOISE]
    together = predictor.predict(images)
    single = [predictor.predict([image])[0].unfamiliar for image in images]
    np.testing.assert_allclose([p.unfamiliar or 0 for p in together], [value or 0 for value in single], atol=2e-4)


def test_unreadable_images_have_no_percentile(predictor: Predictor, broken_png: Path) -> None:
    found = predictor.predict([broken_png, NOISE])
    assert found[0].unfamiliar is None
    assert not found[0].is_unfamiliar
    assert found[1].unfamiliar is not None


def test_an_altered_file_is_refused_by_predict_but_not_by_evaluate(own_run: Run) -> None:
    path = own_run.path / "familiarity.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x7F
    content[len(content) // 2] ^= 0x7F
    path.write_bytes(content[:-8])
    with pytest.raises(
        DamagedFileError, match="move it to another folder; images are then not compared with the training images"
    ):
        own_run.predict(NOISE)
    assert own_run.evaluate().score.num_images
    path.unlink()
    assert Run(own_run.path).predict(NOISE)[0].unfamiliar is None


def test_the_file_of_another_run_is_refused(own_run: Run, blind_run: Run) -> None:
    shutil.copy(blind_run.path / "model.safetensors", own_run.path)
    with pytest.raises(DamagedFileError, match="belongs to other weights; move it"):
        Run(own_run.path).predict(NOISE)


def test_a_run_without_validation_images_flags_nothing(blind_run: Run) -> None:
    assert blind_run.predictor.familiarity is None
    assert blind_run.predict(NOISE)[0].unfamiliar is None


PREDICTIONS = [
    Prediction("a.png", "cat", 0.75, (0.75, 0.25), unfamiliar=0.5),
    Prediction("b.png", "", 0.0, (), "b.png: empty file"),
    Prediction("c.png", "dog", 0.6, (0.4, 0.6), unfamiliar=0.95),
]


def test_tables_have_the_percentile_only_if_there_is_one(tmp_path: Path) -> None:
    write_table(tmp_path / "x.csv", PREDICTIONS, ("cat", "dog"))
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "predicted", "probability", "error", "unfamiliar", "p_cat", "p_dog"]
    assert [row["unfamiliar"] for row in rows] == ["0.5", "", "0.95"]
    old = [replace(prediction, unfamiliar=None) for prediction in PREDICTIONS]
    write_table(tmp_path / "old.csv", old, ("cat", "dog"))
    assert (tmp_path / "old.csv").read_text().splitlines()[0] == "path,predicted,probability,error,p_cat,p_dog"


def test_95_percent_is_the_limit() -> None:
    assert [prediction.is_unfamiliar for prediction in PREDICTIONS] == [False, False, True]


def test_the_command_marks_unfamiliar_images(
    own_run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(image) for image in sorted(photos.rglob("*.png"))]
    predicted = own_run.predict(images)
    assert main(["predict", str(own_run.path), *images]) == 0
    lines = capsys.readouterr().out.splitlines()
    marked = [line.endswith("; unlike the training images") for line in lines]
    assert marked == [prediction.is_unfamiliar for prediction in predicted]
    assert any(marked)
    assert not all(marked)
    assert lines[0].startswith(f"{images[0]}: {labels_line(predicted[0], own_run.predictor)}")


def test_json_has_percentile_and_flag_only_if_they_are_known(
    run: Run, blind_run: Run, photos: Path, broken_png: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(photos.rglob("*.png"))
    assert main(["predict", str(run.path), str(image), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["unfamiliar"], found["is_unfamiliar"]) == (
        run.predict(image)[0].unfamiliar,
        run.predict(image)[0].is_unfamiliar,
    )
    assert main(["predict", str(blind_run.path), str(image), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert not {"unfamiliar", "is_unfamiliar"} & set(found)


def test_inspect_says_whether_images_can_be_flagged(
    run: Run, lone_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, said in (
        (run.path, "flagged"),
        (lone_model, f"not flagged without {lone_model.parent / 'familiarity.safetensors'}"),
    ):
        assert main(["inspect", str(path)]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("unfamiliar images"))
        assert line.removeprefix("unfamiliar images").strip() == said


def test_a_multilabel_run_judges_by_the_energies_of_its_labels_or_by_features(run: Run, predictor: Predictor) -> None:
    known = predictor.familiarity
    assert known is not None
    several = replace(known, is_multilabel=True)
    logits = torch.tensor([[3.0, -1.0, 0.5]])
    features = torch.ones(1, known.features.shape[1])
    expected = -torch.nn.functional.softplus(logits.double()).sum(dim=1)
    torch.testing.assert_close(several.scores("energy", features, logits), expected)
