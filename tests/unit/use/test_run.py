"""Run: everything that can be done with a trained model, from Python."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.errors import DataNotFoundError, NotARunError
from vitreous.model.weights import load_model, save_model
from vitreous.use.run import Run


def test_run_tells_its_classes_metrics_and_accuracy(run: Run) -> None:
    assert run.classes == ('<b>&"', "two words", "Äpfel")
    assert set(run.metrics) == {"val", "test"}
    assert run.accuracy == run.metrics["test"]["accuracy"]


def test_accuracy_is_that_of_validation_where_there_was_no_test(own_run: Run) -> None:
    del own_run.metadata["metrics"]["test"]
    assert own_run.accuracy == own_run.metrics["val"]["accuracy"]


def test_accuracy_without_held_out_images_is_not_a_number(blind_run: Run) -> None:
    assert math.isnan(blind_run.accuracy)
    assert blind_run.metrics == {}


def test_reading_about_a_run_loads_no_weights(run: Run) -> None:
    fresh = Run(run.path)
    assert fresh.classes
    assert fresh.accuracy >= 0
    assert "predictor" not in vars(fresh)


def test_path_may_be_text_a_model_file_or_below_home(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.path.parent))
    for path in (str(run.path), run.path / "model.safetensors", "~/tiny run"):
        assert Run(path).metadata == run.metadata
    assert Run("~/tiny run").path == run.path
    assert repr(Run(run.path)) == f"Run({str(run.path)!r})"


def test_one_image_many_and_folders_can_be_predicted(run: Run, photos: Path) -> None:
    image = photos / "Äpfel" / "bild 3 ü.png"
    assert [p.image for p in run.predict(image)] == [p.image for p in run.predict(str(image))] == [str(image)]
    assert [p.image for p in run.predict([image, str(image)])] == [str(image)] * 2
    assert len(run.predict(photos / "two words")) == 20
    assert len(run.predict((photos / "two words", image))) == 21
    assert run.predict([]) == []


def test_images_in_memory_can_be_predicted(run: Run, photos: Path) -> None:
    image = photos / "Äpfel" / "bild 3 ü.png"
    with Image.open(image) as picture:
        given = [picture.copy(), np.asarray(picture), image.read_bytes(), image]
    found = run.predict(given)
    assert len({p.probabilities for p in found}) == 1
    assert run.predict(given[1])[0].label == found[0].label


def test_missing_image_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"gone\.png: no such file or folder"):
        run.predict(tmp_path / "gone.png")


def test_evaluate_is_of_the_held_out_images_or_of_other_data(run: Run, photos: Path) -> None:
    assert run.evaluate().accuracy == run.accuracy
    assert run.evaluate(photos).score.num_images == 72


def test_path_without_a_run_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="is no run and no model file"):
        Run(tmp_path / "gone")


def test_model_without_a_run_behind_it_has_neither_classes_nor_metrics(run: Run, tmp_path: Path) -> None:
    save_model(tmp_path / "plain.safetensors", load_model(run.path / "model.safetensors"), {})
    plain = Run(tmp_path / "plain.safetensors")
    assert (plain.classes, plain.metrics) == ((), {})
    assert math.isnan(plain.accuracy)
