import contextlib
import csv
import json
import math
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn.functional import one_hot

import vitreous as vt
from vitreous.errors import ConfigError, NonFiniteError, NotARunError, RunError, SaveError
from vitreous.model.parts.attention import Attention
from vitreous.model.weights import load_model, read_metadata, save_model
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Criterion, Supervised
from vitreous.recipe.files import read_config, write_config
from vitreous.recipe.pace import Pace
from vitreous.recipe.run_config import RunConfig
from vitreous.training import start
from vitreous.training.assemble import RunContext, make_loader, new_state
from vitreous.training.finish.with_labels import finish
from vitreous.training.fit.checkpoint import list_checkpoints
from vitreous.training.folder.access import create_run_folder
from vitreous.training.folder.records import Listener, Recorder, ignore, read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import load_data
from vitreous.training.machine.distributed import SINGLE
from vitreous.training.machine.signals import Interrupted
from vitreous.training.measure.instruments import Instruments
from vitreous.training.measure.speed import evaluation_images_per_s, training_pace
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.start import dry_run, run_training
from vitreous.training.weights.pretrained import Pretrained

Tiny = Callable[..., TrainRequest]


def weights_of(folder: RunFolder) -> dict[str, Tensor]:
    return load_model(folder.model).state_dict()


def kinds(folder: RunFolder, *wanted: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] in wanted]


class StopAt:
    """A listener that ends a run like a crash once a step is recorded."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] >= self.step:
            raise RuntimeError("the power is gone")


def crash(request: TrainRequest, step: int, instruments: Instruments | None = None) -> RunFolder:
    """The folder of a run that saved every step and crashed after this one."""
    request = replace(request, values={**request.values, "train.checkpoint_every_s": 0})
    with pytest.raises(RuntimeError, match="the power is gone"):
        run_training(request, StopAt(step), instruments=instruments or Instruments())
    assert request.out is not None
    return RunFolder(request.out)


def test_run_folder_is_complete(tiny: Tiny, tmp_path: Path) -> None:
    folder = run_training(tiny())
    assert {path.name for path in folder.path.iterdir()} == {
        "config.yaml", "plan.md", "records.jsonl", "checkpoints", "model.safetensors", "predictions.csv", "example.png",
        "images.safetensors",
        "outputs.safetensors",
    }  # fmt: skip
    assert [path.name for path in list_checkpoints(folder.checkpoints)] == [
        "step-000000000.safetensors", "step-000000012.safetensors",
    ]  # fmt: skip
    assert folder.plan.read_text().startswith("# Plan (recipe `")
    assert (
        "- fruit: 42 images to train on, 6 validation images to choose the weights by, 13 test images to report the "
        "accuracy on; 3 classes with "
    ) in folder.plan.read_text()
    order = [record["kind"] for record in read_records(folder.records)]
    assert order[:4] == ["start", "plan", "data", "fit"]
    assert order[-1] == "end"


def test_model_file_contains_everything_needed_to_use_it(tiny: Tiny) -> None:
    folder = run_training(tiny(train__seed=3))
    config, metadata = read_config(folder.config), read_metadata(folder.model)
    assert metadata["classes"] == ["apple", "kiwi", "plum"]
    assert metadata["preprocess"] == {
        "img_size": [8, 12], "in_chans": 3, "fit": config.data.fit, "mean": list(config.data.mean or ()),
        "std": list(config.data.std or ()), "value_range": [],
    }  # fmt: skip
    assert (metadata["steps"], metadata["seed"], metadata["data"]) == (12, 3, "fruit")
    assert metadata["weights"] in ("trained", "average")
    assert metadata["temperature"] == 1.0  # six validation images are too few to fit one
    assert metadata["metrics"]["val"]["num_images"] == 6
    assert metadata["metrics"]["test"]["num_images"] == 13
    assert set(metadata["metrics"]["test"]) == {
        *("accuracy", "interval_95", "loss", "num_images", "num_correct"),
        *("majority_class", "majority_share", "balanced_accuracy", "never_predicted"),
    }


def test_predictions_are_those_of_the_saved_model_on_the_test_images(tiny: Tiny, images_folder: Path) -> None:
    folder = run_training(tiny(data__val_ratio=0.4))
    with folder.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    metadata = read_metadata(folder.model)
    assert len(rows) == 13
    assert sum(row["true"] == row["predicted"] for row in rows) == metadata["metrics"]["test"]["num_correct"]
    assert all(Path(row["path"]).parent == images_folder / row["true"] for row in rows)
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)
    assert metadata["example_class"] == rows[0]["true"]
    classes = metadata["classes"]
    each = np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])
    assert [classes[number] for number in each.argmax(axis=1)] == [row["predicted"] for row in rows]
    loss = log_loss([row["true"] for row in rows], each / each.sum(axis=1, keepdims=True), labels=classes)
    assert loss == pytest.approx(metadata["metrics"]["test"]["loss"], abs=1e-6)


def test_probabilities_of_many_classes_are_left_out(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.training.finish.with_labels.MOST_PROBABILITIES", 38)
    folder = run_training(tiny(data__val_ratio=0.4))
    assert folder.predictions.read_text().splitlines()[0] == "path,true,predicted,probability"


def test_example_is_the_first_held_out_image_as_the_model_gets_it(tiny: Tiny) -> None:
    folder = run_training(tiny(train__epochs=1, data__val_ratio=0.6))
    with folder.predictions.open(newline="") as file:
        row = next(csv.DictReader(file))
    metadata = read_metadata(folder.model)
    with Image.open(folder.example) as example:
        pixels = torch.frombuffer(bytearray(example.tobytes()), dtype=torch.uint8).view(8, 12, 3).permute(2, 0, 1)
    mean, std = (torch.tensor(metadata["preprocess"][key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        logits = load_model(folder.model)((pixels[None] / 255 - mean) / std)
    probability, predicted = (logits / metadata["temperature"]).softmax(dim=1)[0].max(dim=0)
    assert metadata["temperature"] != 1.0
    assert metadata["classes"][int(predicted)] == row["predicted"]
    assert float(probability) == pytest.approx(float(row["probability"]), abs=1e-4)


@pytest.mark.parametrize("better", ["trained", "average"])
def test_weights_with_the_lower_validation_loss_are_saved(tiny: Tiny, tmp_path: Path, better: str) -> None:
    survey, plan = plan_run(tiny(), ignore)
    folder = create_run_folder(tmp_path / "run", "fruit")
    recorder = Recorder(folder.records)
    prepared = load_data(plan.config, survey, recorder)
    state, *_ = new_state(
        prepared,
        make_loader(prepared, SINGLE),
        RunContext(folder, recorder, SINGLE, Instruments(), started_s=0.0),
        None,
    )
    state.step = 1
    models = {"trained": state.model, "average": state.ema.model}
    with torch.no_grad():
        for name, model in models.items():
            model.head.weight.mul_(0.0 if name == better else 1e3)  # guesses, or is confidently wrong
    finish(state, prepared, folder, recorder)
    metadata = read_metadata(folder.model)
    assert metadata["weights"] == kinds(folder, "end")[0]["weights"] == better
    assert metadata["metrics"]["val"]["loss"] == pytest.approx(math.log(3), rel=1e-5)
    torch.testing.assert_close(weights_of(folder), models[better].state_dict(), rtol=0, atol=0)


def test_weights_and_average_are_both_evaluated_during_the_run(tiny: Tiny) -> None:
    folder = run_training(tiny(train__epochs=4))
    assert {record["weights"] for record in kinds(folder, "evaluation")} == {"trained", "average"}


def test_temperature_is_fitted_with_enough_validation_images(tiny: Tiny) -> None:
    folder = run_training(tiny(train__epochs=1, data__val_ratio=0.6))
    metadata = read_metadata(folder.model)
    assert metadata["metrics"]["val"]["num_images"] >= 20
    assert metadata["temperature"] != 1.0


def test_same_seed_gives_the_same_weights_and_another_seed_others(tiny: Tiny) -> None:
    first, second, other = (
        weights_of(run_training(tiny(name, train__seed=seed))) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert not any(torch.equal(other[name], first[name]) for name in first if name.endswith("weight"))


def test_run_learns(tiny: Tiny) -> None:
    folder = run_training(tiny(train__epochs=25, optim__lr=0.01))
    assert read_metadata(folder.model)["metrics"]["test"]["accuracy"] >= 0.9


def test_run_folder_is_created_below_runs_by_default(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [run_training(tiny(None, train__epochs=0.2)).path.as_posix() for _ in range(2)] == [
        "runs/fruit-1", "runs/fruit-2",
    ]  # fmt: skip


@pytest.mark.parametrize("epochs", [0.001, 0.5, 1.0])
def test_shortest_run_takes_one_step(tiny: Tiny, epochs: float) -> None:
    folder = run_training(tiny(train__epochs=epochs))
    assert kinds(folder, "end")[0]["step"] == max(1, round(6 * epochs))


def test_batch_larger_than_the_training_set_is_one_step_per_epoch(tiny: Tiny) -> None:
    folder = run_training(tiny(data__batch_size=1_000))
    assert kinds(folder, "end")[0]["step"] == 2
    assert "data.batch_size=1000 is larger than the training set of 42 images" in folder.plan.read_text()


def test_without_held_out_images_the_average_is_saved_and_the_accuracy_is_unknown(tiny: Tiny) -> None:
    folder = run_training(tiny(data__test_ratio=0, data__val_ratio=0))
    metadata = read_metadata(folder.model)
    assert (metadata["weights"], metadata["metrics"], metadata["temperature"]) == ("average", {}, 1.0)
    assert not folder.predictions.exists()
    assert not folder.example.exists()


def test_without_test_images_the_validation_images_are_predicted(tiny: Tiny) -> None:
    folder = run_training(tiny(data__test_ratio=0))
    assert list(read_metadata(folder.model)["metrics"]) == ["val"]
    assert len(folder.predictions.read_text().splitlines()) == 1 + 6


def test_gray_images_make_a_gray_example(tiny: Tiny) -> None:
    folder = run_training(tiny(data__in_chans=1))
    with Image.open(folder.example) as example:
        assert (example.mode, example.size) == ("L", (12, 8))


def test_images_decoded_on_demand_give_the_same_weights(tiny: Tiny) -> None:
    in_memory = weights_of(run_training(tiny("a")))
    on_demand = weights_of(run_training(tiny("b", data__memory_limit_bytes=0)))
    torch.testing.assert_close(on_demand, in_memory, rtol=0, atol=0)


def test_unreadable_file_is_left_out_and_listed(tiny: Tiny, own_images: Path) -> None:
    (own_images / "kiwi" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    folder = run_training(tiny(data=own_images))
    (record,) = kinds(folder, "data")
    assert [name for name, _ in record["skipped"]] == [str(own_images / "kiwi" / "07.png")]
    assert record["num_train"] + record["num_val"] + record["num_test"] == 60
    assert "1 unreadable file is left out, such as " in folder.plan.read_text()


def test_class_names_may_contain_any_characters(tiny: Tiny, own_images: Path) -> None:
    odd = own_images / "kiwi | \u2028 <b>"
    (own_images / "kiwi").rename(odd)
    folder = run_training(tiny(data=own_images))
    assert read_metadata(folder.model)["classes"] == ["apple", "kiwi | \u2028 <b>", "plum"]
    assert kinds(folder, "data")[0]["classes"][1] == "kiwi | \u2028 <b>"


def test_dry_run_writes_no_files(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts, plan = dry_run(tiny(None))
    assert (facts.num_train, plan.config.model.embed_dim) == (42, 16)
    assert not list(tmp_path.iterdir())


def test_nonempty_folder_is_refused_before_the_data_is_read(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError) as caught:
        run_training(replace(tiny(), data="/nowhere"))
    assert str(caught.value) == f"out={out}: exists and is not empty; choose another folder"
    assert (out / "thesis.txt").read_text() == "all of it"


# Budgets.


@pytest.fixture
def fast() -> Instruments:
    """Instruments on a clock that runs ten times as fast as real time."""

    def pace(config: RunConfig, teacher: Pretrained | None) -> Pace:
        real = training_pace(config, teacher, seconds=0.03)
        return Pace(tuple((start, end, 10 * step_s) for start, end, step_s in real.stretches))

    return Instruments(
        clock=lambda: 10 * time.monotonic(),
        training_pace=pace,
        evaluation_images_per_s=lambda config: evaluation_images_per_s(config, seconds=0.03) / 10,
    )


def test_budget_ends_the_run_in_time_and_completes_the_schedule(tiny: Tiny, fast: Instruments) -> None:
    folder = run_training(tiny(train__budget_s=30.0, train__epochs=100_000), instruments=fast)
    (end,) = kinds(folder, "end")
    assert 15.0 < end["elapsed_s"] < 33.0
    last = kinds(folder, "step")[-1]
    assert last["progress"] > 0.95  # a step is recorded before its time shows that it was the last
    assert last["lr"] < 0.05 * read_config(folder.config).optim.lr


def test_budget_that_is_over_at_once_takes_one_step(tiny: Tiny, quick: Instruments) -> None:
    folder = run_training(tiny(train__budget_s=0.01), instruments=quick)
    assert kinds(folder, "end")[0]["step"] >= 1
    assert folder.model.exists()


def test_long_budget_ends_at_the_epochs_of_the_user(tiny: Tiny, quick: Instruments) -> None:
    folder = run_training(tiny(train__budget_s=600.0, train__epochs=1.0), instruments=quick)
    assert kinds(folder, "end")[0]["step"] == 6


def test_pace_that_the_planner_measured_is_used_by_the_budget(tiny: Tiny) -> None:
    measured: list[RunConfig] = []

    def pace(config: RunConfig, teacher: object) -> Pace:
        measured.append(config)
        return Pace(((0.0, 1.0, 1_000.0),))  # so slow that the budget allows one step

    instruments = Instruments(training_pace=pace, evaluation_images_per_s=lambda config: 1e6)
    request = tiny(train__budget_s=500.0, train__checkpoint_every_s=0)
    folder = run_training(request, instruments=instruments)
    assert len(measured) == 1
    assert kinds(folder, "fit")[0]["end_step"] == 1


def test_resumed_run_with_a_budget_measures_again(tiny: Tiny, quick: Instruments) -> None:
    crashed = crash(tiny(train__budget_s=600.0), 4, quick)
    measured: list[RunConfig] = []

    def pace(config: RunConfig, teacher: Pretrained | None) -> Pace:
        measured.append(config)
        return training_pace(config, teacher, seconds=0.03)

    run_training(TrainRequest(resume=crashed.path), instruments=replace(quick, training_pace=pace))
    assert len(measured) == 1


# A high loss at the first step.


class Confident(Criterion):
    """Cross-entropy with the logit of the true class lowered by 5, so that a model starts confident and wrong."""

    def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        return CrossEntropy()(logits - 5 * one_hot(targets, logits.shape[1]), targets, total)


def test_high_first_loss_is_blamed_on_the_pretrained_head_only_if_there_is_one(tiny: Tiny) -> None:
    instruments = with_loss(Confident())

    def first_step(folder: RunFolder) -> dict[str, Any]:
        return next(record for record in kinds(folder, "health") if "first_loss" in record)

    fresh = run_training(tiny("fresh", train__epochs=0.2), instruments=instruments)
    assert first_step(fresh)["first_loss"] > 1.5 * math.log(3)
    assert first_step(fresh)["notes"] == []
    kept = run_training(tiny("kept", train__pretrained=str(fresh.path), train__epochs=0.2), instruments=instruments)
    assert first_step(kept)["first_loss"] > 1.5 * math.log(3)
    assert len(first_step(kept)["notes"]) == 1
    assert "pretrained head" in first_step(kept)["notes"][0]


def test_new_head_on_pretrained_weights_starts_with_the_loss_of_guessing(tiny: Tiny) -> None:
    options: dict[str, Any] = {
        "objective__label_smoothing": 0.0, "train__epochs": 0.2, "train__head_init": "zero"
    }  # fmt: skip
    other = run_training(tiny("other", **options))
    weights = load_model(other.path)
    weights.reset_classifier(7)
    file = other.path.parent / "other.safetensors"
    save_model(file, weights, {})
    folder = run_training(tiny("run", train__pretrained=str(file), **options))
    (first,) = [record["first_loss"] for record in kinds(folder, "health") if "first_loss" in record]
    assert first == pytest.approx(math.log(3), rel=1e-6)


def test_accuracy_and_loss_of_a_run_in_bf16_are_those_of_float32(tiny: Tiny) -> None:
    run = vt.load_run(run_training(tiny("run", train__precision="bf16")).path)
    found, written = run.evaluate().score, run.metrics["test"]
    assert (found.num_correct, found.num_images) == (written["num_correct"], written["num_images"])
    assert run.metadata["temperature"] == 1.0  # few validation images
    assert written["loss"] == pytest.approx(found.loss, rel=1e-5)


# Resuming.


def test_crashed_run_continues_bit_for_bit(tiny: Tiny) -> None:
    whole = run_training(tiny("whole"))
    crashed = crash(tiny("crashed"), step=7)
    assert not crashed.model.exists()
    resumed = run_training(TrainRequest(resume=crashed.path))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)
    assert resumed.predictions.read_text() == whole.predictions.read_text()
    # The record of step 7 was written before the crash, its checkpoint was not.
    assert [(r["step"], r["checkpoint"]) for r in kinds(resumed, "resume")] == [(6, "step-000000006.safetensors")]


@pytest.mark.parametrize("memory_limit_bytes", [0, 10**9])
def test_crash_in_the_middle_of_an_epoch_shows_no_image_twice(tiny: Tiny, memory_limit_bytes: int) -> None:
    keys = {"data__memory_limit_bytes": memory_limit_bytes, "train__epochs": 3}
    whole = run_training(tiny("whole", **keys))
    resumed = run_training(TrainRequest(resume=crash(tiny("crashed", **keys), step=9).path))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


def test_run_that_reuses_the_outputs_of_frozen_blocks_continues_bit_for_bit(tiny: Tiny) -> None:
    keys = {"model__depth": 2, "train__freeze_blocks": 1, "train__reuse_frozen": True, "train__epochs": 3}
    whole = run_training(tiny("whole", **keys))
    resumed = run_training(TrainRequest(resume=crash(tiny("crashed", **keys), step=8).path))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)
    same = run_training(tiny("same", **keys | {"train__reuse_frozen": False, "data__flip": False}))
    torch.testing.assert_close(weights_of(same), weights_of(whole), rtol=1e-4, atol=1e-5)


AUGMENTED = {
    "data__policy": "randaugment", "data__color_jitter": 0.3, "data__fill": "reflect", "data__mixup_alpha": 0.8,
    "data__cutmix_alpha": 1.0, "data__mix_per": "pair", "data__mix_until": 0.7, "data__sampler": "balanced",
    "data__repeats": 2, "objective__class_weights": "balanced",
}  # fmt: skip


@pytest.mark.parametrize("memory_limit_bytes", [0, 10**9])
def test_run_with_all_augmentation_mixing_and_sampling_continues_bit_for_bit(
    tiny: Tiny, memory_limit_bytes: int
) -> None:
    keys = AUGMENTED | {"data__memory_limit_bytes": memory_limit_bytes, "train__epochs": 3}
    whole = run_training(tiny("whole", **keys))
    resumed = run_training(TrainRequest(resume=crash(tiny("crashed", **keys), step=8).path))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


@pytest.mark.parametrize("key", sorted(AUGMENTED))
def test_each_key_of_augmentation_mixing_and_sampling_changes_the_weights(tiny: Tiny, key: str) -> None:
    always = {"data__max_shift": 0.3, "data__mixup_alpha": 0.8, "train__epochs": 1}
    plain = run_training(tiny("plain", **always))
    changed = run_training(tiny("changed", **{**always, key: AUGMENTED[key], **FURTHER.get(key, {})}))
    weights = weights_of(plain)
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in weights_of(changed).items())


FURTHER = {"data__mixup_alpha": {"data__mix_rate": 0.5}}
"""Further keys for a key that the plain run sets too."""


def test_epochs_count_repeated_images(tiny: Tiny) -> None:
    folder = run_training(tiny(data__repeats=3, data__batch_size=8, train__epochs=2))
    (began,) = kinds(folder, "fit")
    assert (began["steps_per_epoch"], began["end_step"]) == (7.0, 14)  # 42 images, two a batch, three times each
    assert kinds(folder, "step")[-1]["epoch"] == 2.0


def test_weighted_sampling_of_data_without_weights_is_refused_before_any_file_is_written(
    tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.sampler=weighted: .*fruit has no sample weights; use balanced or shuffle"
    ):
        run_training(tiny(data__sampler="weighted"))
    assert list(tmp_path.iterdir()) == []


def test_table_with_weights_is_sampled_by_weight(tiny: Tiny, own_images: Path) -> None:
    rows = [f"{path},{path.parent.name},{int(path.parent.name == 'kiwi') + 1}" for path in own_images.rglob("*.png")]
    table = own_images.parent / "table.csv"
    table.write_text("\n".join(["path,label,weight", *rows]) + "\n")
    _, plan = dry_run(tiny(None, data=table))
    assert plan.config.data.sampler == "weighted"
    weighted = run_training(tiny("weighted", data=table))
    shuffled = run_training(tiny("shuffled", data=table, data__sampler="shuffle"))
    assert not torch.equal(weights_of(weighted)["head.weight"], weights_of(shuffled)["head.weight"])


def test_truncated_newest_checkpoint_is_recorded_and_the_run_continues_bit_for_bit(tiny: Tiny) -> None:
    whole = run_training(tiny("whole"))
    crashed = crash(tiny("crashed"), step=7)
    newest = list_checkpoints(crashed.checkpoints)[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = run_training(TrainRequest(resume=crashed.path))
    assert (
        "step-000000006.safetensors: cannot be read as .safetensors"
        in kinds(resumed, "damaged_checkpoint")[0]["reason"]
    )
    assert kinds(resumed, "resume")[0]["step"] == 5
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


def test_run_without_an_intact_checkpoint_is_refused(tiny: Tiny) -> None:
    crashed = crash(tiny(), step=4)
    for path in list_checkpoints(crashed.checkpoints):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=f"^run={crashed.path}: none of its checkpoints can be used"):
        run_training(TrainRequest(resume=crashed.path))


def blocking_the_model_file(request: TrainRequest) -> Listener:
    """A listener that makes saving the model fail: it creates a folder in the place of the file."""

    def listen(kind: str, fields: Any) -> None:
        if kind == "end" and request.out is not None:
            RunFolder(request.out).model.mkdir()

    return listen


def test_run_that_failed_to_save_its_model_can_be_resumed(tiny: Tiny) -> None:
    whole, request = run_training(tiny("whole")), tiny("crashed")
    with pytest.raises(SaveError, match=r"model\.safetensors"):
        run_training(request, blocking_the_model_file(request))
    crashed = RunFolder(whole.path.parent / "crashed")
    crashed.model.rmdir()
    resumed = run_training(TrainRequest(resume=crashed.path))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)
    assert kinds(resumed, "resume")[0]["step"] == 12
    assert [record["step"] for record in kinds(resumed, "step")][-1] == 12


def test_budget_takes_no_further_steps_after_the_last(tiny: Tiny, quick: Instruments) -> None:
    request = tiny(train__budget_s=60.0, train__epochs=1.0)
    with pytest.raises(SaveError):
        run_training(request, blocking_the_model_file(request), instruments=quick)
    assert request.out is not None
    RunFolder(request.out).model.rmdir()
    resumed = run_training(TrainRequest(resume=request.out), instruments=quick)
    assert kinds(resumed, "end")[-1]["step"] == 6


def test_resumed_run_keeps_the_rest_of_its_budget(tiny: Tiny, fast: Instruments) -> None:
    crashed = crash(tiny(train__budget_s=30.0, train__epochs=100_000), 5, fast)
    resumed = run_training(TrainRequest(resume=crashed.path), instruments=fast)
    assert kinds(resumed, "resume")[0]["elapsed_s"] > 0
    assert kinds(resumed, "end")[0]["elapsed_s"] < 35.0


def test_run_that_crashed_before_decoding_can_be_resumed(tiny: Tiny) -> None:
    def stop(kind: str, fields: Any) -> None:
        if kind == "plan":
            raise RuntimeError

    whole, request = run_training(tiny("whole")), tiny("crashed")
    with pytest.raises(RuntimeError):
        run_training(request, stop)
    assert request.out is not None
    assert read_config(request.out / "config.yaml").data.mean is None
    resumed = run_training(TrainRequest(resume=request.out))
    assert read_config(resumed.config).data.mean == read_config(whole.config).data.mean
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


def test_folder_can_be_used_again_if_the_configuration_could_not_be_written(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = tiny()
    with monkeypatch.context() as full_disk:
        full_disk.setattr(start, "write_config", _no_space)
        with pytest.raises(SaveError, match="No space left"):
            run_training(request)
    assert run_training(request).model.is_file()


def _no_space(path: Path, config: RunConfig) -> None:
    raise SaveError(f"{path}: could not be written (No space left on device)")


@pytest.mark.parametrize(("key", "value"), [("device", "cuda:7"), ("precision", "tf32")])
def test_run_is_resumed_on_a_machine_without_its_device(
    tiny: Tiny, key: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("vitreous.training.machine.device.has_tf32", lambda device: False)
    crashed, heard = crash(tiny(), step=4), list[dict[str, Any]]()
    config = read_config(crashed.config)
    write_config(crashed.config, replace(config, train=replace(config.train, **{key: value})))
    listen = lambda kind, fields: heard.append(dict(fields)) if kind == "device" else None  # noqa: E731
    assert run_training(TrainRequest(resume=crashed.path), listen).model.is_file()
    wanted = {"device": "cpu", "precision": "fp32"} | {key: value}
    text = f"train.device={wanted['device']}, train.precision={wanted['precision']}"
    assert heard == [{"wanted": text, "device": "cpu"}]


def test_partly_written_files_of_a_crash_are_removed(tiny: Tiny) -> None:
    crashed = crash(tiny(), step=4)
    half = crashed.checkpoints / ".step-000000004.safetensors.ab12.tmp"
    half.write_bytes(b"half")
    run_training(TrainRequest(resume=crashed.path))
    assert not half.exists()


def test_resuming_a_complete_run_changes_nothing(tiny: Tiny) -> None:
    folder = run_training(tiny())
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    heard: list[tuple[str, Any]] = []
    again = run_training(TrainRequest(resume=folder.path), lambda kind, fields: heard.append((kind, dict(fields))))
    assert again == folder
    assert heard == [("complete", {"run": str(folder.path)})]
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "digits"},
        {"model": "vit_pico"},
        {"values": {"train.seed": 1}},
        {"out": Path("x")},
    ],
)
def test_resume_takes_no_other_options(tiny: Tiny, changes: dict[str, Any]) -> None:
    folder = run_training(tiny(train__epochs=0.2))
    with pytest.raises(ConfigError) as caught:
        run_training(replace(TrainRequest(resume=folder.path), **changes))
    assert str(caught.value) == (
        f"resume={folder.path}: a run or series keeps its settings; leave out all options except --data and "
        "--data.root, for data that has moved"
    )


def test_resuming_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match=f"^run={tmp_path}: is a folder without config.yaml, not a run folder"):
        run_training(TrainRequest(resume=tmp_path))


@pytest.mark.parametrize("change", ["remove", "alter", "add", "move"])
def test_resuming_with_changed_data_is_refused(tiny: Tiny, own_images: Path, change: str) -> None:
    crashed = crash(tiny(data=own_images), step=4)
    fingerprint = kinds(crashed, "data")[0]["fingerprint"]
    path = own_images / "kiwi" / "07.png"
    if change == "remove":
        path.unlink()
    elif change == "move":
        path.rename(own_images / "plum" / "moved.png")
    else:
        place = path if change == "alter" else own_images / "kiwi" / "new.png"
        Image.new("RGB", (14, 9), (1, 2, 3)).save(place)
    with pytest.raises(RunError) as caught:
        run_training(TrainRequest(resume=crashed.path))
    message = str(caught.value)
    assert message.startswith(f"run={crashed.path}: its data has changed since the run started (fingerprint ")
    assert f", was {fingerprint}); restore {own_images}, or start a new run" in message
    assert message.count(fingerprint) == 1


def test_renamed_file_does_not_change_the_data(tiny: Tiny, own_images: Path) -> None:
    crashed = crash(tiny(data=own_images), step=4)
    (own_images / "kiwi" / "07.png").rename(own_images / "kiwi" / "another.png")
    run_training(TrainRequest(resume=crashed.path))


def test_resuming_with_an_edited_architecture_is_refused(tiny: Tiny) -> None:
    crashed = crash(tiny(), step=4)
    text = crashed.config.read_text()
    assert "embed_dim: 16" in text
    crashed.config.write_text(text.replace("embed_dim: 16", "embed_dim: 20"))
    with pytest.raises(RunError, match=r"does not fit this run, .*train again with --out"):
        run_training(TrainRequest(resume=crashed.path))


def test_moved_run_can_be_resumed(tiny: Tiny, tmp_path: Path) -> None:
    crashed = crash(tiny(), step=4)
    moved = Path(shutil.move(crashed.path, tmp_path / "elsewhere"))
    assert run_training(TrainRequest(resume=moved)).model.exists()


# A loss of NaN, in whole runs.


class NanFrom(Criterion):
    """Cross-entropy that is NaN from one call to another, or to the end."""

    def __init__(self, first: int, last: float = math.inf) -> None:
        super().__init__()
        self.calls, self.first, self.last = 0, first, last
        self.sound = CrossEntropy()

    def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        self.calls += 1
        return self.sound(logits, targets, total) * (math.nan if self.first <= self.calls <= self.last else 1.0)


def with_loss(criterion: Criterion) -> Instruments:
    return Instruments(build_task=lambda config, counts, teacher: Supervised(criterion))


def test_loss_that_stays_nan_stops_the_run_and_saves_finite_weights(tiny: Tiny) -> None:
    request = tiny(train__max_retries=1)
    with pytest.raises(NonFiniteError, match=r"^step=0: the loss is not finite, even after 1 rollback and a lower "):
        run_training(request, instruments=with_loss(NanFrom(5)))
    assert request.out is not None
    folder = RunFolder(request.out)
    assert not folder.model.exists()
    assert [record["cause"] for record in kinds(folder, "refused")] == ["the loss"] * 4


def test_loss_that_is_nan_for_a_while_does_not_stop_the_run(tiny: Tiny) -> None:
    folder = run_training(tiny(), instruments=with_loss(NanFrom(5, 8)))
    assert kinds(folder, "end")[0]["refused"] == 2
    assert all(tensor.isfinite().all() for tensor in weights_of(folder).values())


def test_learning_rate_that_is_far_too_high_leaves_finite_weights(tiny: Tiny) -> None:
    request = tiny(optim__lr=1e30, optim__clip_norm=0)
    with contextlib.suppress(NonFiniteError):
        run_training(request)
    assert request.out is not None
    for path in list_checkpoints(request.out / "checkpoints"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_stop_signal_interrupts_the_run_and_resume_continues_bit_for_bit(tiny: Tiny) -> None:
    def stop(kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] == 3:
            signal.raise_signal(signal.SIGINT)

    whole, request = run_training(tiny("whole")), tiny("stopped")
    with pytest.raises(Interrupted, match="stopped at step 3 and saved"):
        run_training(request, stop)
    resumed = run_training(TrainRequest(resume=request.out))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


def test_records_of_a_whole_run_are_valid_json(tiny: Tiny) -> None:
    folder = run_training(tiny())
    for line in folder.records.read_text().splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not valid JSON"))


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_training_uses_the_requested_attention_kernel(tiny: Tiny, kernel: str) -> None:
    used: set[str] = set()

    def note(module: torch.nn.Module, inputs: object, output: object) -> None:
        if isinstance(module, Attention) and module.training:
            used.add(module.kernel)

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        run_training(tiny(train__attention_kernel=kernel, train__epochs=1))
    finally:
        handle.remove()
    assert used == {kernel}
