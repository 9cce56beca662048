"""The accuracy on changed photos: paired with the photos as they are, and what the result says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.store import MemoryStore
from vitreous.data.sources import open_source
from vitreous.errors import NotARunError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.paired import classify_all, paired_difference, paired_interval, points
from vitreous.use.evaluate.robustness.changes import CHANGES, changes_for
from vitreous.use.evaluate.robustness.robustness import Robustness, _show, measure_robustness
from vitreous.use.run import Run


@pytest.fixture(scope="module")
def found(run: Run) -> Robustness:
    return run.robustness()


FEW = (CHANGES[0], CHANGES[5], CHANGES[10], CHANGES[-1])
"""Changes of every kind: noise, blur, color, another resizing."""


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure only some changes, which is quick."""
    monkeypatch.setattr("vitreous.use.evaluate.robustness.robustness.changes_for", lambda channels: FEW)


def effect(name: str, loss: tuple[float, float, float], **more: Any) -> dict[str, Any]:
    values = {"name": name, "unit": "severity", "strengths": [1, 2], "accuracies": [0.5, 0.25], "losses": [loss, loss],
              "loss": loss, "option": "", "way_out": "add such images to the training images"}  # fmt: skip
    return values | more


def made(*effects: dict[str, Any]) -> Robustness:
    return Robustness("toys, test split", True, 500, 1203, 0.75, (0.2, 0.15, 0.25), effects)


# Measuring.


def test_accuracy_on_unchanged_photos_is_that_of_the_run(run: Run, found: Robustness) -> None:
    stored = run.metrics["test"]
    assert (found.data, found.is_own) == ("my photos, test split", True)
    assert (found.accuracy, found.num_images, found.num_available) == (
        pytest.approx(stored["accuracy"]),
        stored["num_images"],
        stored["num_images"],
    )


def test_every_change_is_measured_at_every_strength(found: Robustness) -> None:
    assert [effect["name"] for effect in found.effects] == [change.name for change in CHANGES]
    for each, change in zip(found.effects, CHANGES, strict=True):
        assert len(each["accuracies"]) == len(each["losses"]) == len(change.strengths)
        for accuracy, (loss, low, high) in zip(each["accuracies"], each["losses"], strict=True):
            assert loss == pytest.approx(found.accuracy - accuracy)
            assert low <= high
        assert each["loss"][0] == pytest.approx(found.accuracy - np.mean(each["accuracies"]))
    common = [each["accuracies"] for each in found.effects[:15]]
    assert found.loss[0] == pytest.approx(found.accuracy - np.mean(common))


def test_a_model_of_colors_needs_colors_but_no_place(found: Robustness) -> None:
    """The classes of these photos differ in nothing but color, and the model knows it."""
    losses = {each["name"]: each["loss"][0] for each in found.effects}
    assert losses["less color"] > 0.1
    assert abs(losses["shift"]) < losses["less color"]


@pytest.mark.usefixtures("few")
def test_result_is_the_same_each_time_and_for_other_batches(
    run: Run, found: Robustness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.use.evaluate.paired.BATCH_SIZE", 5)
    names = [change.name for change in FEW]
    assert list(run.robustness().effects) == [each for each in found.effects if each["name"] in names]


@pytest.mark.usefixtures("few")
def test_more_images_than_the_limit_are_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.use.evaluate.robustness.robustness._MOST_IMAGES", 7)
    some = run.robustness()
    assert (some.num_images, some.num_available) == (7, run.metrics["test"]["num_images"])
    assert some.sentences[0].startswith(
        f"accuracy {some.accuracy:.1%} on 7 of {some.num_available} images of my photos"
    )


@pytest.mark.usefixtures("few")
def test_progress_and_the_expected_time_are_reported(run: Run) -> None:
    events: list[tuple[str, Any]] = []
    measure_robustness(run.path, listener=lambda kind, fields: events.append((kind, fields)))
    (estimate,) = (fields["text"] for kind, fields in events if kind == "estimate")
    assert estimate == f"{run.metrics['test']['num_images']} images, {len(FEW)} changes: about 1 minute"
    last = events[-1][1]
    assert (last["what"], last["done"]) == ("changing photos", last["total"])


@pytest.mark.usefixtures("few")
def test_other_data_is_not_the_data_of_the_run(run: Run, lone_model: Path, photos: Path) -> None:
    other = measure_robustness(lone_model, str(photos))
    assert (other.is_own, other.num_images) == (False, 72)
    assert all(each["option"] == change.option(None) for each, change in zip(other.effects, FEW, strict=True))
    with pytest.raises(NotARunError, match="is a model file"):
        measure_robustness(lone_model)


def test_photos_with_several_labels_count_if_all_labels_are_right() -> None:
    class Predicts:
        thresholds = (0.5, 0.25)

        def classify(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.5, 0.2], [0.6, 0.3], [0.1, 0.25]])

    store = MemoryStore(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, 2, dtype=torch.bool))
    true = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert classify_all(Predicts(), store, true).tolist() == [1.0, 0.0, 1.0]  # type: ignore[arg-type]


def test_paired_difference_is_the_mean_with_the_interval_of_a_comparison() -> None:
    differences = [1.0, 0.0, 0.0, -1.0, 1.0, 0.0]
    assert paired_difference(differences) == (pytest.approx(1 / 6), *paired_interval(differences))
    assert points((0.125, -0.02, 0.27)) == "12.5 points (95% interval -2.0 to 27.0)"


# One image.


@pytest.fixture
def large_photos(tmp_path: Path) -> Path:
    """Two classes of photos of 60 x 80 and 80 x 60 px."""
    draw = np.random.default_rng(0)
    for name, size in (("tall", (80, 60)), ("wide", (60, 80))):
        (tmp_path / "large" / name).mkdir(parents=True)
        for number in range(2):
            pixels = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "large" / name / f"{number}.png")
    return tmp_path / "large"


def shown(source: Any, preprocess: Preprocess, name: str, index: int, step: int = 0) -> torch.Tensor:
    (change,) = (change for change in CHANGES if change.name == name)
    return _show(source, preprocess, change, step, preprocess.pixels(source.encoded(index)), index)


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_another_kernel_shows_the_same_part_of_the_photo(large_photos: Path, fit: Any, in_chans: int) -> None:
    source = open_source(str(large_photos))
    preprocess = Preprocess(img_size=(20, 24), in_chans=in_chans, fit=fit)
    for index in range(len(source)):
        usual = preprocess.pixels(source.encoded(index)).float()
        lanczos = shown(source, preprocess, "Lanczos resizing", index).float()
        nearest = shown(source, preprocess, "nearest-neighbor resizing", index).float()
        assert lanczos.shape == nearest.shape == (in_chans, 20, 24)
        assert 0 < (lanczos - usual).abs().mean() < 5 < (nearest - usual).abs().mean()


def test_nothing_changes_if_photos_are_not_resized(large_photos: Path) -> None:
    source, preprocess = open_source(str(large_photos)), Preprocess(img_size=(60, 80), in_chans=3)
    (index,) = [k for k in range(len(source)) if "wide/0" in source.describe(k)]
    for change in (change for change in changes_for(3) if not change.unit):
        found = _show(source, preprocess, change, 0, torch.zeros(3, 60, 80, dtype=torch.uint8), index)
        torch.testing.assert_close(found, preprocess.pixels(source.encoded(index)))


def test_random_numbers_depend_on_the_image_and_the_change(large_photos: Path) -> None:
    source, preprocess = open_source(str(large_photos)), Preprocess(img_size=(12, 12), in_chans=3)
    gray = torch.full((3, 12, 12), 127, dtype=torch.uint8)
    noise, shift = CHANGES[0], CHANGES[1]
    first = _show(source, preprocess, noise, 4, gray, 0)
    assert torch.equal(first, _show(source, preprocess, noise, 4, gray, 0))
    assert not torch.equal(first, _show(source, preprocess, noise, 4, gray, 1))
    assert not torch.equal(first, _show(source, preprocess, shift, 4, gray, 0))


def test_images_of_16_bits_are_scaled_like_in_training(run_on: Callable[..., Run], tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for name, level in (("dim", 500), ("bright", 3000)):
        (tmp_path / "deep" / name).mkdir(parents=True)
        for number in range(24):
            pixels = draw.integers(level, level + 900, (9, 14), dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / "deep" / name / f"{number}.png")
    run = run_on(tmp_path / "deep", name="deep")
    found = run.robustness()
    assert found.accuracy == pytest.approx(run.accuracy)
    losses = {each["name"]: each["loss"][0] for each in found.effects}
    assert "less color" not in losses
    assert losses["Lanczos resizing"] == pytest.approx(0, abs=0.1)


# What it says.


def test_sentences_name_the_three_worst_changes_and_what_to_do() -> None:
    found = made(
        effect("snow", (0.1, 0.05, 0.15)),
        effect(
            "fog", (0.4, 0.3, 0.5), option="--data.color_jitter 0.4", way_out="train with `--data.color_jitter 0.4`"
        ),
        effect("frost", (0.05, -0.01, 0.11)),
        effect("shift", (0.2, 0.1, 0.3)),
        effect("rotation", (0.15, 0.1, 0.2)),
    )
    assert found.sentences == [
        "accuracy 75.0% on 500 of 1,203 images of toys, test split; on average, the 15 common corruptions cost 20.0 "
        "points (95% interval 15.0 to 25.0)",
        "fog costs 40.0 points (95% interval 30.0 to 50.0); train with `--data.color_jitter 0.4`",
        "shift costs 20.0 points (95% interval 10.0 to 30.0); add such images to the training images",
        "rotation costs 15.0 points (95% interval 10.0 to 20.0); add such images to the training images",
    ]


def test_changes_that_chance_explains_are_not_called_bad() -> None:
    assert len(made(effect("frost", (0.05, -0.01, 0.11))).sentences) == 1


def test_table_has_a_row_for_each_change() -> None:
    heading, snow, box = made(
        effect("snow", (0.1, 0.05, 0.15)),
        effect("box resizing", (-0.01, -0.02, 0.0), unit="", strengths=[1], accuracies=[0.76]),
    ).table()
    assert heading == ("change", "strengths", "accuracy, %", "mean loss, points", "95% interval")
    assert snow == ("snow", "1 2 severity", "50 25", "10.0", "5.0 to 15.0")
    assert box == ("box resizing", "", "76", "-1.0", "-2.0 to 0.0")


def test_saved_result_is_the_document(found: Robustness, tmp_path: Path) -> None:
    found.save(tmp_path)
    stored = json.loads(RunFolder(tmp_path).robustness.read_text("utf-8"))
    assert stored == json.loads(json.dumps(found.as_dict()))
    assert stored["sentences"] == found.sentences
    again = Robustness(**{name: stored[name] for name in Robustness.__dataclass_fields__})
    assert (again.sentences, again.table()) == (found.sentences, found.table())
