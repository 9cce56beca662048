"""evaluate: scores on the held-out images of a run, or on other data."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics
from tests.pictures import write_pictures

from vitreous.errors import ConfigError, DamagedFileError, DataError, DataNotFoundError, NotARunError, UnknownNameError
from vitreous.recipe.files import read_config
from vitreous.training.folder.outputs import SplitOutputs, read_outputs, write_outputs
from vitreous.training.folder.records import ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.prepare import survey_again
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.evaluator import evaluate
from vitreous.use.evaluate.stored import stored_evaluation
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run

RunOn = Callable[..., Run]


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photos that a test may modify."""
    return Path(shutil.copytree(photos, tmp_path / "own photos"))


def _copy_images(path: Path, *, images: int, of: Path) -> None:
    """Make a class folder with copies of the first images of another."""
    path.mkdir(parents=True)
    for image in sorted(of.iterdir())[:images]:
        shutil.copy(image, path)


def _num_by_split(run: Run) -> dict[str, int]:
    surveyed = survey_again(read_config(run.path / "config.yaml").data, ignore)
    return {split: len(indices) for split, indices in surveyed.indices.items()}


def test_evaluation_of_a_run_reproduces_its_stored_test_score(run: Run) -> None:
    found, stored = evaluate(run.path), run.metrics["test"]
    assert found.data == "my photos, test split"
    assert found.score.num_images == stored["num_images"] == found.confusion.sum()
    assert found.score.num_correct == stored["num_correct"] == np.trace(found.confusion)
    assert found.score.loss == pytest.approx(stored["loss"], abs=1e-6)
    assert list(found.score.interval) == stored["interval_95"]


def test_calibration_is_judged_with_temperatures_of_other_images(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the run had only validation images: then its temperature was fitted to the images that are scored."""
    plain = evaluate(run.path).calibration
    fitted = run.predictor
    monkeypatch.setattr(Predictor, "load", lambda path, device: replace(fitted, temperature=3.0))
    monkeypatch.setattr("vitreous.use.evaluate.labeled_images.scored_split", lambda splits: "val")
    found = evaluate(run.path)
    assert found.data == "my photos, validation split"
    assert plain is not None
    assert found.calibration is not None
    monkeypatch.setattr("vitreous.use.evaluate.outputs.cross_fitted_temperatures", lambda *_: torch.tensor(3.0))
    assert evaluate(run.path).calibration != found.calibration


def test_classes_are_in_the_order_of_the_model(run: Run) -> None:
    assert tuple(row.name for row in evaluate(run.path).classes) == run.classes == tuple(sorted(run.classes))


def test_model_file_can_be_evaluated_on_other_data(lone_model: Path, photos: Path) -> None:
    found = evaluate(lone_model, str(photos))
    assert found.data == (
        "all of my photos (the model comes without a record of its training images, so those among these are not "
        "recognized)"
    )
    assert found.known is None
    assert [row.num_images for row in found.classes] == [23, 20, 29]


def test_run_of_an_older_version_says_that_it_recognizes_no_image(own_run: Run, photos: Path) -> None:
    (own_run.path / "images.safetensors").unlink()
    found = evaluate(own_run.path, str(photos))
    assert found.data.startswith("all of my photos (the model comes without a record of its training images")


def test_moved_and_renamed_training_images_are_recognized_by_content(run: Run, own_photos: Path) -> None:
    for number, image in enumerate(sorted(own_photos.glob("*/*.png"))):
        image.rename(image.with_name(f"{number}.png"))
    found, sizes = evaluate(run.path, str(own_photos)), _num_by_split(run)
    assert found.data == "all of own photos"
    assert found.known is not None
    assert (found.known.num_trained, found.known.num_chosen) == (sizes["train"], sizes["val"])
    assert found.known.others is not None
    stored = run.metrics["test"]  # the others are the test images
    assert (found.known.others.num_images, found.known.others.num_correct) == (
        stored["num_images"],
        stored["num_correct"],
    )
    assert found.known.sentence.startswith(
        f"the model was trained on {sizes['train']} of these images and its weights were chosen by {sizes['val']} of "
        "them, so this accuracy is optimistic; accuracy on the others: "
    )
    assert found.as_dict()["known"]["num_trained"] == sizes["train"]


def test_new_images_are_not_called_known(run: Run, photos: Path, tmp_path: Path) -> None:
    for name in ("Äpfel", "two words"):
        (tmp_path / "new" / name).mkdir(parents=True)
        for number, image in enumerate(sorted((photos / name).iterdir())[:5]):
            Image.open(image).rotate(180).save(tmp_path / "new" / name / f"{number}.png")
    found = evaluate(run.path, str(tmp_path / "new"))
    assert found.known is not None
    assert (found.known.num_trained, found.known.num_chosen, found.known.sentence) == (0, 0, "")
    assert found.known.others == found.score


def test_nothing_but_training_images_leaves_no_others(run: Run, photos: Path, tmp_path: Path) -> None:
    surveyed = survey_again(read_config(run.path / "config.yaml").data, ignore)
    for index in surveyed.indices["train"]:
        image = Path(surveyed.source.describe(int(index)))
        (tmp_path / "known" / image.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "known" / image.parent.name)
    found = evaluate(run.path, str(tmp_path / "known"))
    assert found.known is not None
    assert found.known.others is None
    assert found.known.sentence.endswith("so this accuracy is optimistic; no image is new to it")


def test_unreadable_files_do_not_shift_what_is_known(run: Run, own_photos: Path) -> None:
    (own_photos / "Äpfel" / "aaa.png").write_bytes(b"no image")
    (own_photos / "two words" / "aaa.png").symlink_to("nowhere")
    found, sizes = evaluate(run.path, str(own_photos)), _num_by_split(run)
    assert found.known is not None
    assert found.known.num_trained == sizes["train"]
    assert found.known.others is not None
    assert found.known.others.num_correct == run.metrics["test"]["num_correct"]


def test_only_the_test_split_of_a_folder_is_evaluated(run: Run, photos: Path, tmp_path: Path) -> None:
    for name in ("Äpfel", "two words"):
        _copy_images(tmp_path / "split" / "train" / name, images=4, of=photos / name)
        _copy_images(tmp_path / "split" / "test" / name, images=3, of=photos / name)
    found = evaluate(run.path, str(tmp_path / "split"))
    assert found.data == "split, test split"
    assert [row.num_images for row in found.classes] == [0, 3, 3]


def test_classes_are_matched_by_name_not_by_index(run: Run, photos: Path, tmp_path: Path) -> None:
    for name in ("Äpfel", "two words"):  # indices 0 and 1 in this set, 1 and 2 in the model
        _copy_images(tmp_path / "fewer" / name, images=6, of=photos / name)
    found = evaluate(run.path, str(tmp_path / "fewer"))
    by_name = {row.name: row.num_images for row in found.classes}
    assert by_name == {'<b>&"': 0, "Äpfel": 6, "two words": 6}
    assert found.confusion[0].sum() == 0


def test_run_of_an_older_version_keeps_the_order_of_its_classes(
    run_on: RunOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colors = {"0": ((200, 60, 50), 20), "90": ((70, 180, 60), 21), "180": ((90, 70, 190), 22)}
    data = write_pictures(tmp_path / "angles", colors, seed=3, name="{}.png", noise=20, tint=30)
    with monkeypatch.context() as older:
        older.setattr("vitreous.data.sources.folder.in_class_order", sorted)
        old = run_on(data, name="old")
    assert old.classes == ("0", "180", "90")
    found = evaluate(old.path)
    assert found.accuracy == old.accuracy
    assert [row.name for row in found.classes] == ["0", "180", "90"]
    assert evaluate(old.path, str(data)).confusion.sum(axis=1).tolist() == [20, 22, 21]
    before = (old.path / "model.safetensors").read_bytes()
    (old.path / "model.safetensors").unlink()
    run_training(TrainRequest(resume=old.path))
    assert (old.path / "model.safetensors").read_bytes() == before
    assert run_on(data, name="new", **{"train.epochs": 0.2}).classes == ("0", "90", "180")


def test_unreadable_files_are_skipped_and_reported(run: Run, photos: Path, tmp_path: Path) -> None:
    for name in ("Äpfel", "two words"):
        _copy_images(tmp_path / "some" / name, images=5, of=photos / name)
    broken = tmp_path / "some" / "Äpfel" / "broken.png"
    broken.write_bytes(b"no image")
    events: list[object] = []
    found = evaluate(run.path, str(tmp_path / "some"), listener=lambda kind, fields: events.append((kind, fields)))
    assert found.score.num_images == 10
    assert ("skipped", {"skipped": ((str(broken), "not an image that Pillow can read"),)}) in events


def test_progress_is_reported(run: Run) -> None:
    stages: list[object] = []
    evaluate(run.path, listener=lambda kind, fields: stages.append(fields.get("what")))
    assert {"reading", "decoding"} <= set(stages)


def test_unknown_class_is_an_error_with_the_nearest_name(run: Run, own_photos: Path) -> None:
    (own_photos / "Äpfel").rename(own_photos / "Apfel")
    with pytest.raises(DataError) as caught:
        evaluate(run.path, str(own_photos))
    assert str(caught.value) == "own photos: class Apfel is unknown to the model; did you mean Äpfel?"


def test_changed_data_is_an_error_but_moved_data_is_not(own_run: Run, own_photos: Path) -> None:
    _point_to(own_run, own_photos)
    before = evaluate(own_run.path)
    assert before.data == "own photos, test split"  # a moved folder is the same data
    (own_photos / "Äpfel" / "bild 0 ü.png").unlink()
    with pytest.raises(DataError) as caught:
        evaluate(own_run.path)
    was = own_run.metadata["data_fingerprint"]
    assert str(caught.value).startswith("own photos: has changed since the run (fingerprint ")
    assert (
        f", was {was}), so the test split may contain images that the model was trained on; give other data: "
        in str(caught.value)
    )
    assert str(caught.value).endswith(f"`vitreous evaluate {own_run.path} DATA`")


def test_model_file_needs_data(lone_model: Path) -> None:
    with pytest.raises(NotARunError) as caught:
        evaluate(lone_model)
    assert str(caught.value) == (
        f"run={lone_model}: is a model file, which does not record its test images; "
        f"give other data: `vitreous evaluate {lone_model} DATA`"
    )


def test_run_without_held_out_images_needs_data(blind_run: Run) -> None:
    with pytest.raises(DataError) as caught:
        evaluate(blind_run.path)
    way_out = f"give other data: `vitreous evaluate {blind_run.path} DATA`"
    assert str(caught.value) == f"my photos: the run has no test or validation images; {way_out}"


def test_run_without_test_images_is_evaluated_on_its_validation_images(run_on: RunOn, photos: Path) -> None:
    val_run = run_on(photos, **{"data.test_ratio": 0.0, "train.epochs": 0.3})
    found, stored = evaluate(val_run.path), val_run.metrics["val"]
    assert found.data == "my photos, validation split"
    assert (found.score.num_images, found.score.num_correct) == (stored["num_images"], stored["num_correct"])
    assert found.score.loss == pytest.approx(stored["loss"], abs=1e-6)


def test_missing_data_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=f"data.source={tmp_path / 'gone'}: no such set and no such folder; "):
        evaluate(run.path, str(tmp_path / "gone"), listener=ignore)


def _point_to(run: Run, photos: Path) -> None:
    config = run.path / "config.yaml"
    lines = config.read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines) if "source:" in line)
    indent, _, rest = lines[number].partition("source:")
    lines[number] = f"{indent}source: {photos}" + (rest[rest.index(",") :] if "," in rest else "")
    config.write_text("\n".join(lines), encoding="utf-8")


# Costs of mistakes, and predictions of other tools.


def test_costs_change_what_is_predicted_and_the_evaluation_says_what_that_saves(run: Run) -> None:
    plain = run.evaluate()
    assert isinstance(plain, Evaluation)
    true, predicted, *_ = plain.confused_most(1)[0]
    costly = run.evaluate(cost={(true, predicted): 50.0})
    assert isinstance(costly, Evaluation)
    assert plain.decision is None
    np.testing.assert_array_equal(costly.predicted, plain.predicted)  # the scores are still those of the model
    decision = costly.decision
    assert decision is not None
    assert decision["cost_after"] < decision["cost_before"]
    number = run.classes.index(predicted)
    assert (decision["predicted"] == number).sum() < (plain.predicted == number).sum()
    assert decision["confusion"].sum() == plain.score.num_images
    assert evaluate(run.path, cost=[f"{true}:{predicted}=50"]).as_dict()["cost"]["cost_after"] == decision["cost_after"]


def test_an_unknown_class_in_a_cost_is_refused_before_images_are_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.use.evaluate.evaluator.labeled_images", None)
    with pytest.raises(UnknownNameError, match=r"cost='Apfel': no such class; did you mean Äpfel\?"):
        run.evaluate(cost={("Apfel", "two words"): 2})


def test_numbers_of_confused_images_are_those_of_the_source(run: Run) -> None:
    found = run.evaluate()
    assert isinstance(found, Evaluation)
    source = survey_again(read_config(run.path / "config.yaml").data, ignore).source
    pairs = found.confused_most(9)
    assert pairs
    for true, _, num, images in pairs:
        assert len(images) == num
        assert all(Path(source.describe(index)).parent.name == true for index in images)


def test_stored_outputs_give_the_evaluation_of_the_run_without_its_images(run: Run, own_run: Run) -> None:
    stored = stored_evaluation(RunFolder(run.path), run.metadata, "test")
    again = evaluate(run.path)
    assert stored.as_dict() | {"data": again.data} == again.as_dict()
    assert stored.calibration is not None
    RunFolder(own_run.path).outputs.unlink()  # as in runs of older versions
    old = stored_evaluation(RunFolder(own_run.path), own_run.metadata, "test")
    np.testing.assert_array_equal(old.confusion, stored.confusion)
    assert old.score.as_dict() == stored.score.as_dict()
    assert (old.calibration, old.data) == (None, stored.data)


def test_stored_outputs_of_other_images_are_not_used(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    outputs = read_outputs(folder.outputs)
    test = outputs["test"]
    write_outputs(folder.outputs, outputs | {"test": SplitOutputs(test.logits[1:], test.labels[1:], test.indices[1:])})
    assert stored_evaluation(folder, own_run.metadata, "test").calibration is None
    broken = test.logits.clone()
    broken[0, 0] = torch.nan
    write_outputs(folder.outputs, {"test": SplitOutputs(broken, test.labels, test.indices)})
    with pytest.raises(DamagedFileError, match="test: a logit is not finite"):
        stored_evaluation(folder, own_run.metadata, "test")


def test_table_of_predictions_gives_the_scores_of_the_run_that_made_it(run: Run) -> None:
    found, stored = evaluate(run.path / "predictions.csv"), run.metrics["test"]
    assert found.data == "predictions.csv"
    assert (found.score.num_images, found.score.num_correct) == (stored["num_images"], stored["num_correct"])
    expected = evaluate(run.path)
    assert found.calibration.ece == pytest.approx(expected.calibration.ece, abs=1e-5)
    assert found.score.loss == pytest.approx(expected.calibration.nll, abs=1e-6)


def test_table_with_all_probabilities_has_loss_top_k_and_costs(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    shares = draws.dirichlet(np.ones(3), size=80).round(4)
    true, names = draws.integers(3, size=80), np.array(["good", "so so", "bad"])
    rows = [f"{names[t]},{names[p.argmax()]},{','.join(map(str, p))}" for t, p in zip(true, shares, strict=True)]
    table = tmp_path / "other tool.csv"
    table.write_text("\n".join(["true,predicted,p_good,p_so so,p_bad", *rows]), encoding="utf-8")
    found = evaluate(table, cost={("bad", "good"): 9})
    shares /= shares.sum(axis=1, keepdims=True)
    assert found.score.loss == pytest.approx(metrics.log_loss(true, shares))
    assert found.calibration.nll == pytest.approx(found.score.loss)
    assert found.top_k == {2: pytest.approx(metrics.top_k_accuracy_score(true, shares, k=2))}
    assert found.decision["cost_after"] < found.decision["cost_before"]
    table.write_text("\n".join(["true,predicted,p_good,p_so so,p_bad", *rows, "bad,so so,0.9,0.1,0"]), encoding="utf-8")
    assert evaluate(table).data == ("other tool.csv (another class than the predicted one is most probable in 1 row)")


def test_confidence_in_the_only_class_of_a_table_is_not_taken_for_its_probability(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("true,predicted,probability\na,a,0.9\na,a,0.6\n", encoding="utf-8")
    found = evaluate(table)
    assert np.isnan(found.score.loss)
    assert np.isnan(found.calibration.brier)
    assert found.calibration.confidence == pytest.approx(0.75)


def test_table_of_predictions_needs_no_data_and_costs_need_probabilities(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("true,predicted,probability\na,a,0.9\nb,a,0.6\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        evaluate(table, str(tmp_path))
    assert (
        str(caught.value) == f"run={table}: is a table of predictions, which needs no other data and no root; omit them"
    )
    with pytest.raises(ConfigError) as caught:
        evaluate(table, cost=["a:b=2"])
    assert str(caught.value) == "cost: needs the probability of each class; add the columns p_CLASS to x.csv"
    with pytest.raises(DataNotFoundError, match=r"gone\.csv: cannot be read"):
        evaluate(tmp_path / "gone.csv")
