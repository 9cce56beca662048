"""Run: what can be done with a trained model from Python."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.errors import DataNotFoundError, NotARunError
from vitreous.model.weights import load_model, save_model
from vitreous.use.run import Run


def test_run_has_classes_metrics_and_accuracy(run: Run) -> None:
    assert run.classes == ('<b>&"', "two words", "Äpfel")
    assert set(run.metrics) == {"val", "test"}
    assert run.accuracy == run.metrics["test"]["accuracy"]


def test_accuracy_is_on_validation_images_if_there_are_no_test_images(own_run: Run) -> None:
    del own_run.metadata["metrics"]["test"]
    assert own_run.accuracy == own_run.metrics["val"]["accuracy"]


def test_accuracy_without_held_out_images_is_nan(blind_run: Run) -> None:
    assert math.isnan(blind_run.accuracy)
    assert blind_run.metrics == {}


def test_metadata_is_read_without_loading_weights(run: Run) -> None:
    fresh = Run(run.path)
    assert fresh.classes
    assert fresh.accuracy >= 0
    assert not {"model", "predictor"} & set(vars(fresh))


def test_model_is_the_trained_one_in_evaluation_mode_and_loaded_once(run: Run, photos: Path) -> None:
    fresh = Run(run.path)
    assert fresh.model is fresh.model is fresh.predictor.model
    assert not any(module.training for module in fresh.model.modules())
    stored = load_model(run.path / "model.safetensors").state_dict()
    torch.testing.assert_close(fresh.model.state_dict(), stored, rtol=0, atol=0)
    pixels = fresh.predictor.preprocess.pixels(photos / "two words" / "bild 1 ü.png")[None]
    with torch.inference_mode():
        logits = fresh.model(fresh.predictor.preprocess.normalize(pixels))
    assert fresh.classes[int(logits.argmax())] == fresh.predict(photos / "two words" / "bild 1 ü.png")[0].label


def test_path_may_be_a_string_a_model_file_or_start_with_a_tilde(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.path.parent))
    for path in (str(run.path), run.path / "model.safetensors", "~/tiny run"):
        assert Run(path).metadata == run.metadata
    assert Run("~/tiny run").path == run.path
    assert repr(Run(run.path)) == f"Run({str(run.path)!r})"


def test_one_image_many_images_and_folders_can_be_classified(run: Run, photos: Path) -> None:
    image = photos / "Äpfel" / "bild 3 ü.png"
    assert [p.image for p in run.predict(image)] == [p.image for p in run.predict(str(image))] == [str(image)]
    assert [p.image for p in run.predict([image, str(image)])] == [str(image)] * 2
    assert len(run.predict(photos / "two words")) == 20
    assert len(run.predict((photos / "two words", image))) == 21
    assert run.predict([]) == []


def test_images_in_memory_can_be_classified(run: Run, photos: Path) -> None:
    image = photos / "Äpfel" / "bild 3 ü.png"
    with Image.open(image) as picture:
        given = [picture.copy(), np.asarray(picture), image.read_bytes(), image]
    found = run.predict(given)
    assert len({p.probabilities for p in found}) == 1
    assert run.predict(given[1])[0].label == found[0].label


def test_missing_image_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"gone\.png: no such file or folder"):
        run.predict(tmp_path / "gone.png")


def test_evaluate_scores_held_out_images_or_other_data(run: Run, photos: Path) -> None:
    assert run.evaluate().accuracy == run.accuracy
    assert run.evaluate(photos).score.num_images == 72


def test_missing_path_is_an_error_immediately(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="gone: does not exist; "):
        Run(tmp_path / "gone")


def test_plain_model_file_has_a_model_but_no_classes_and_metrics(run: Run, tmp_path: Path) -> None:
    save_model(tmp_path / "plain.safetensors", load_model(run.path / "model.safetensors"), {})
    plain = Run(tmp_path / "plain.safetensors")
    assert (plain.classes, plain.metrics) == ((), {})
    assert math.isnan(plain.accuracy)
    assert plain.model.config == run.model.config
