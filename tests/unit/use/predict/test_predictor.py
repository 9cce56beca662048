"""Predictor: the model file is enough to reproduce the predictions of training."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import load_store
from vitreous.errors import DamagedFileError, NotARunError
from vitreous.model.weights import load_model, read_metadata, save_model
from vitreous.recipe.files import read_config
from vitreous.training.fit.evaluate import compute_logits
from vitreous.training.folder.records import ignore, read_records
from vitreous.training.prepare import survey_again
from vitreous.use.predict.predictor import Predictor, find_model
from vitreous.use.run import Run


@pytest.fixture(scope="module")
def predictor(run: Run) -> Predictor:
    return Predictor.load(run.path)


@pytest.fixture
def altered(run: Run, tmp_path: Path) -> Callable[..., Path]:
    """Copy the model file with changed metadata; None removes a key."""

    def alter(**changes: Any) -> Path:
        metadata = read_metadata(run.path / "model.safetensors") | changes
        kept = {key: value for key, value in metadata.items() if value is not None}
        for own in ("format", "architecture"):
            kept.pop(own)
        save_model(tmp_path / "altered.safetensors", load_model(run.path / "model.safetensors"), kept)
        return tmp_path / "altered.safetensors"

    return alter


def test_probabilities_equal_those_computed_by_training(run: Run, predictor: Predictor) -> None:
    config = read_config(run.path / "config.yaml").data
    surveyed = survey_again(config, ignore)
    store = load_store(surveyed.source, surveyed.indices["test"], predictor.preprocess)
    logits, _ = compute_logits(predictor.model, EvalLoader(store, predictor.preprocess, 7), "fp32")
    files = [surveyed.source.describe(int(index)) for index in surveyed.indices["test"]]
    found = predictor.predict(files)
    assert [prediction.image for prediction in found] == files
    expected = (logits / predictor.temperature).softmax(dim=1)
    torch.testing.assert_close(torch.tensor([prediction.probabilities for prediction in found]), expected)


def test_predictions_equal_those_in_predictions_csv(run: Run, predictor: Predictor) -> None:
    with (run.path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = predictor.predict([row["path"] for row in rows])
    assert len(rows) == run.metrics["test"]["num_images"]
    assert [prediction.label for prediction in found] == [row["predicted"] for row in rows]
    written = torch.tensor([float(row["probability"]) for row in rows])
    torch.testing.assert_close(
        torch.tensor([prediction.probability for prediction in found]), written, atol=2e-6, rtol=0
    )


def test_model_file_outside_its_run_predicts_the_same(lone_model: Path, predictor: Predictor, photos: Path) -> None:
    images = sorted(photos.rglob("*.png"))[::7]
    expected = [replace(prediction, unfamiliar=None) for prediction in predictor.predict(images)]
    assert Predictor.load(lone_model).predict(images) == expected


def test_probabilities_sum_to_one_and_the_label_has_the_largest(predictor: Predictor, photos: Path) -> None:
    for prediction in predictor.predict(sorted(photos.rglob("*.png"))[::5]):
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)
        assert prediction.probability == max(prediction.probabilities)
        assert prediction.label == predictor.classes[prediction.probabilities.index(prediction.probability)]


def test_logits_are_divided_by_the_temperature(predictor: Predictor, photos: Path) -> None:
    image = photos / "Äpfel" / "bild 3 ü.png"
    warm = replace(predictor, temperature=2.5)
    logits = predictor.logits(predictor.preprocess.pixels(image)[None])
    expected = (logits / 2.5).softmax(dim=1)[0]
    torch.testing.assert_close(torch.tensor(warm.predict([image])[0].probabilities), expected)


def test_temperature_is_the_one_fitted_by_training(predictor: Predictor, run: Run) -> None:
    end = [record for record in read_records(run.path / "records.jsonl") if record["kind"] == "end"][-1]
    assert predictor.temperature == end["temperature"] > 0


def test_path_bytes_pil_image_and_array_of_one_image_predict_the_same(predictor: Predictor, photos: Path) -> None:
    path = photos / "Äpfel" / "bild 3 ü.png"
    with Image.open(path) as picture:
        found = predictor.predict([path, str(path), path.read_bytes(), picture, np.asarray(picture)])
    assert len({prediction.probabilities for prediction in found}) == 1
    assert [p.image for p in found] == [str(path), str(path), "image 2", "image 3", "image 4"]


def test_unreadable_image_gets_an_error_and_the_others_are_classified(
    predictor: Predictor, photos: Path, broken_png: Path
) -> None:
    good = photos / "two words" / "bild 1 ü.png"
    found = predictor.predict([good, broken_png, good])
    assert found[0] == found[2]
    assert (found[0].image, found[0].error) == (str(good), "")
    assert found[0].probabilities == pytest.approx(predictor.predict([good])[0].probabilities, abs=1e-6)
    assert found[1].error == f"{broken_png}: not an image that Pillow can read"
    assert (found[1].label, found[1].probability, found[1].probabilities) == ("", 0.0, ())


def test_all_images_may_be_unreadable(predictor: Predictor, broken_png: Path) -> None:
    assert [bool(prediction.error) for prediction in predictor.predict([broken_png, broken_png])] == [True, True]


def test_no_images_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_images_of_other_sizes_and_modes_are_accepted(predictor: Predictor) -> None:
    large = io.BytesIO()
    Image.new("L", (301, 17), 40).save(large, format="png")
    found = predictor.predict([large.getvalue(), np.zeros((5, 40, 4), dtype=np.uint8)])
    assert [prediction.error for prediction in found] == ["", ""]


def test_more_images_than_a_batch_keep_their_order(predictor: Predictor, photos: Path) -> None:
    images = sorted(photos.rglob("*.png")) * 2
    found = predictor.predict(images)
    assert [prediction.image for prediction in found] == [str(image) for image in images]
    assert found[:72] == found[72:]


def test_undecodable_file_name_can_be_printed(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    odd = tmp_path / b"odd \xff.png".decode("utf-8", "surrogateescape")
    odd.write_bytes((photos / "Äpfel" / "bild 3 ü.png").read_bytes())
    found = predictor.predict([odd])[0]
    assert found.image == f"{tmp_path}/odd \\xff.png"
    assert found.label


def test_model_is_in_evaluation_mode(predictor: Predictor) -> None:
    assert not any(module.training for module in predictor.model.modules())


# Paths without a model.


def test_unfinished_run_is_an_error_with_the_command_to_continue_it(unfinished: Path) -> None:
    with pytest.raises(NotARunError) as caught:
        find_model(unfinished)
    wanted = f"run={unfinished}: is not finished; continue it with `vitreous train --resume '{unfinished}'`"
    assert str(caught.value) == wanted


def test_missing_path_is_an_error_that_says_how_to_train(tmp_path: Path) -> None:
    with pytest.raises(NotARunError) as caught:
        find_model(tmp_path / "gone")
    assert str(caught.value) == f"run={tmp_path / 'gone'}: does not exist; train a model with `vitreous train DATA`"


def test_missing_path_is_an_error_with_the_nearest_run(run: Run) -> None:
    with pytest.raises(NotARunError) as caught:
        find_model(Path(f"{run.path}s"))
    assert str(caught.value) == f"run={run.path}s: does not exist; did you mean {run.path}?"


def test_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotARunError) as caught:
        find_model(tmp_path)
    assert str(caught.value) == (
        f"run={tmp_path}: contains no model.safetensors; give a run folder that `vitreous train` made"
    )


@pytest.mark.parametrize(
    ("finished", "line"),
    [
        (["a b", "c"], "is a series with 2 finished runs; give one of them, e.g. '{path}/a b'"),
        (["c"], "is a series with 1 finished run; give one of them, e.g. {path}/c"),
        ([], "is a series with 0 finished runs; wait until a run is finished"),
    ],
)
def test_series_is_an_error_that_names_a_run(finished: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "series.json").touch()
    for name in finished:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    with pytest.raises(NotARunError) as caught:
        find_model(tmp_path)
    assert str(caught.value) == f"run={tmp_path}: {line.format(path=tmp_path)}"


def test_checkpoint_is_not_a_model(run: Run) -> None:
    checkpoint = sorted((run.path / "checkpoints").iterdir())[-1]
    with pytest.raises(NotARunError) as caught:
        Predictor.load(checkpoint)
    assert str(caught.value) == f"run={checkpoint}: is a checkpoint, not a model; give the run folder {run.path}"


def test_image_given_as_run_is_an_error_that_shows_the_order(photos: Path) -> None:
    image = photos / "Äpfel" / "bild 3 ü.png"
    with pytest.raises(NotARunError) as caught:
        Predictor.load(image)
    wanted = f"run={image}: is an image; give the run first, as in `vitreous predict RUN IMAGE`"
    assert str(caught.value) == wanted


def test_home_is_expanded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.path.parent))
    assert find_model(Path("~/tiny run")) == run.path / "model.safetensors"


@pytest.mark.parametrize("key", ["classes", "preprocess", "temperature"])
def test_model_without_metadata_for_prediction_is_rejected(key: str, altered: Callable[..., Path]) -> None:
    file = altered(**{key: None})
    with pytest.raises(DamagedFileError) as caught:
        Predictor.load(file)
    assert str(caught.value) == f"{file}: lacks metadata for prediction ({key!r}); use the model file of a run"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"classes": ["a", "b"]},
            "metadata has 2 classes and images of 3x8x12, but the model has 3 classes and images of 3x8x12",
        ),
        ({"temperature": 0.0}, "metadata has temperature 0, which must be positive and finite"),
        ({"temperature": -1.5}, "metadata has temperature -1.5, which must be positive and finite"),
    ],
)
def test_metadata_that_contradicts_the_model_is_rejected(
    change: dict[str, Any], line: str, altered: Callable[..., Path]
) -> None:
    file = altered(**change)
    with pytest.raises(DamagedFileError) as caught:
        Predictor.load(file)
    assert str(caught.value) == f"{file}: {line}; use the model file of a run"


def test_preprocessing_for_another_size_is_rejected(run: Run, altered: Callable[..., Path]) -> None:
    preprocess = run.metadata["preprocess"] | {"img_size": [8, 10]}
    file = altered(preprocess=preprocess)
    with pytest.raises(
        DamagedFileError, match=r"has 3 classes and images of 3x8x10, but the model has 3 classes and images of 3x8x12"
    ):
        Predictor.load(file)
