import contextlib
import csv
import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from vitreous.errors import ConfigError, NonFiniteError, NotARunError, RunError, SaveError
from vitreous.model.parts.attention import Attention
from vitreous.model.weights import load_model, read_metadata
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Criterion, Supervised
from vitreous.recipe.files import read_config
from vitreous.training import assemble as room
from vitreous.training import finish
from vitreous.training.fit.checkpoint import list_checkpoints
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.signals import Interrupted
from vitreous.training.measure import speed as calibrate
from vitreous.training.request import TrainRequest
from vitreous.training.start import dry_run, run_training

Tiny = Callable[..., TrainRequest]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step costs is measured for a moment only."""
    monkeypatch.setattr(calibrate, "MEASURED_S", 0.03)


def weights_of(folder: RunFolder) -> dict[str, Tensor]:
    return load_model(folder.model).state_dict()


def kinds(folder: RunFolder, *wanted: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] in wanted]


class StopAt:
    """A listener that interrupts a run, as a crash would, when it has recorded so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] >= self.step:
            raise RuntimeError("the power is gone")


def crash(request: TrainRequest, step: int) -> RunFolder:
    """A run that crashed after this step; it saves after each."""
    request = replace(request, values={**request.values, "train.checkpoint_every_s": 0})
    with pytest.raises(RuntimeError, match="the power is gone"):
        run_training(request, StopAt(step))
    assert request.out is not None
    return RunFolder(request.out)


def test_run_leaves_everything_behind(tiny: Tiny, tmp_path: Path) -> None:
    folder = run_training(tiny())
    assert {path.name for path in folder.path.iterdir()} == {
        "config.yaml", "plan.md", "records.jsonl", "checkpoints", "model.safetensors", "predictions.csv", "example.png",
    }  # fmt: skip
    assert [path.name for path in list_checkpoints(folder.checkpoints)] == [
        "step-000000000.safetensors", "step-000000012.safetensors",
    ]  # fmt: skip
    assert folder.plan.read_text().startswith("# Plan (recipe `")
    assert "fruit: 42 images to train on, 6 to validate, 13 to test; 3 classes" in folder.plan.read_text()
    order = [record["kind"] for record in read_records(folder.records)]
    assert order[:4] == ["start", "plan", "data", "fit"]
    assert order[-1] == "end"


def test_model_file_alone_says_all_that_is_needed(tiny: Tiny) -> None:
    folder = run_training(tiny(train__seed=3))
    config, metadata = read_config(folder.config), read_metadata(folder.model)
    assert metadata["classes"] == ["apple", "kiwi", "plum"]
    assert metadata["preprocess"] == {
        "img_size": [8, 12], "in_chans": 3, "fit": config.data.fit, "mean": list(config.data.mean or ()),
        "std": list(config.data.std or ()),
    }  # fmt: skip
    assert (metadata["steps"], metadata["seed"], metadata["data"]) == (12, 3, "fruit")
    assert metadata["weights"] in ("trained", "average")
    assert metadata["temperature"] == 1.0  # six validation images are too few to fit one
    assert metadata["metrics"]["val"]["num_images"] == 6
    assert metadata["metrics"]["test"]["num_images"] == 13
    assert set(metadata["metrics"]["test"]) == {"accuracy", "interval_95", "loss", "num_images", "num_correct"}


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


def test_example_is_the_first_held_out_image_as_the_model_sees_it(tiny: Tiny) -> None:
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


@pytest.mark.parametrize(("better", "part"), [("trained", "model"), ("average", "ema")])
def test_weights_with_the_lower_validation_loss_are_saved(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, better: str, part: str
) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    sure, unsure = 5.0 * torch.eye(3)[labels], 1.0 * torch.eye(3)[labels]
    found = {name: (sure if name == better else unsure, labels) for name in ("trained", "average")}
    monkeypatch.setattr(finish, "_val_logits", lambda models, prepared, precision, group: found)
    folder = run_training(tiny())
    metadata = read_metadata(folder.model)
    assert metadata["weights"] == kinds(folder, "end")[0]["weights"] == better
    assert metadata["metrics"]["val"]["loss"] == pytest.approx(math.log(1 + 2 * math.exp(-5)), rel=1e-5)
    tensors = load_file(list_checkpoints(folder.checkpoints)[-1])
    expected = {name: tensors[f"{part}.{name}"] for name in weights_of(folder)}
    torch.testing.assert_close(weights_of(folder), expected, rtol=0, atol=0)


def test_weights_and_average_are_both_evaluated_on_the_way(tiny: Tiny) -> None:
    folder = run_training(tiny(train__epochs=4))
    assert {record["weights"] for record in kinds(folder, "evaluation")} == {"trained", "average"}


def test_temperature_is_fitted_where_there_are_enough_validation_images(tiny: Tiny) -> None:
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


def test_run_folder_is_found_below_runs_where_none_was_asked(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [run_training(tiny(None, train__epochs=0.2)).path.as_posix() for _ in range(2)] == [
        "runs/fruit-1", "runs/fruit-2",
    ]  # fmt: skip


@pytest.mark.parametrize("epochs", [0.001, 0.5, 1.0])
def test_shortest_run_takes_a_step(tiny: Tiny, epochs: float) -> None:
    folder = run_training(tiny(train__epochs=epochs))
    assert kinds(folder, "end")[0]["step"] == max(1, round(6 * epochs))


def test_batch_larger_than_the_set_is_one_step_an_epoch(tiny: Tiny) -> None:
    folder = run_training(tiny(data__batch_size=1_000))
    assert kinds(folder, "end")[0]["step"] == 2
    assert "data.batch_size=1000 is more than the 42 images" in folder.plan.read_text()


def test_without_held_out_images_the_average_is_saved_and_the_accuracy_unknown(tiny: Tiny) -> None:
    folder = run_training(tiny(data__test_ratio=0, data__val_ratio=0))
    metadata = read_metadata(folder.model)
    assert (metadata["weights"], metadata["metrics"], metadata["temperature"]) == ("average", {}, 1.0)
    assert not folder.predictions.exists()
    assert not folder.example.exists()


def test_without_test_images_the_validation_images_are_written(tiny: Tiny) -> None:
    folder = run_training(tiny(data__test_ratio=0))
    assert list(read_metadata(folder.model)["metrics"]) == ["val"]
    assert len(folder.predictions.read_text().splitlines()) == 1 + 6


def test_gray_images_make_a_gray_example(tiny: Tiny) -> None:
    folder = run_training(tiny(data__in_chans=1))
    with Image.open(folder.example) as example:
        assert (example.mode, example.size) == ("L", (12, 8))


def test_images_that_are_decoded_when_needed_give_the_same_weights(tiny: Tiny) -> None:
    in_memory = weights_of(run_training(tiny("a")))
    when_needed = weights_of(run_training(tiny("b", data__memory_limit_bytes=0)))
    torch.testing.assert_close(when_needed, in_memory, rtol=0, atol=0)


def test_unreadable_file_among_good_ones_is_left_out_and_listed(tiny: Tiny, own_images: Path) -> None:
    (own_images / "kiwi" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    folder = run_training(tiny(data=own_images))
    (record,) = kinds(folder, "data")
    assert [name for name, _ in record["skipped"]] == [str(own_images / "kiwi" / "07.png")]
    assert record["num_train"] + record["num_val"] + record["num_test"] == 60
    assert "1 file could not be read and is left out" in folder.plan.read_text()


def test_names_with_any_characters_are_trained_on(tiny: Tiny, own_images: Path) -> None:
    odd = own_images / "kiwi | \u2028 <b>"
    (own_images / "kiwi").rename(odd)
    folder = run_training(tiny(data=own_images))
    assert read_metadata(folder.model)["classes"] == ["apple", "kiwi | \u2028 <b>", "plum"]
    assert kinds(folder, "data")[0]["classes"][1] == "kiwi | \u2028 <b>"


def test_dry_run_makes_nothing(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts, plan = dry_run(tiny(None))
    assert (facts.num_train, plan.config.model.embed_dim) == (42, 16)
    assert not list(tmp_path.iterdir())


def test_folder_that_holds_something_is_refused_before_the_data_is_read(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError) as caught:
        run_training(replace(tiny(), data="/nowhere"))
    assert str(caught.value) == f"out={out}: exists and is not empty; choose another folder"
    assert (out / "thesis.txt").read_text() == "all of it"


# Budgets.


def test_budget_ends_the_run_in_time_and_with_a_whole_schedule(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OUTSIDE_S", 0.5)
    folder = run_training(tiny(train__budget_s=3.0, train__epochs=100_000))
    (end,) = kinds(folder, "end")
    assert 1.5 < end["elapsed_s"] < 3.3
    last = kinds(folder, "step")[-1]
    assert last["progress"] == 1.0
    assert last["lr"] < 0.05 * read_config(folder.config).optim.lr


def test_budget_that_is_over_before_it_begins_takes_a_step(tiny: Tiny) -> None:
    folder = run_training(tiny(train__budget_s=0.01))
    assert kinds(folder, "end")[0]["step"] >= 1
    assert folder.model.exists()


def test_budget_longer_than_worth_it_ends_at_the_epochs_asked(tiny: Tiny) -> None:
    folder = run_training(tiny(train__budget_s=600.0, train__epochs=1.0))
    assert kinds(folder, "end")[0]["step"] == 6


# Going on.


def test_run_that_crashed_goes_on_bit_for_bit(tiny: Tiny) -> None:
    whole = run_training(tiny("whole"))
    crashed = crash(tiny("crashed"), step=7)
    assert not crashed.model.exists()
    resumed = run_training(TrainRequest(resume=crashed.path))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)
    assert resumed.predictions.read_text() == whole.predictions.read_text()
    # The record of step 7 was written, and its checkpoint not yet.
    assert [(r["step"], r["checkpoint"]) for r in kinds(resumed, "resume")] == [(6, "step-000000006.safetensors")]


@pytest.mark.parametrize("memory_limit_bytes", [0, 10**9])
def test_crash_in_the_middle_of_an_epoch_shows_no_image_twice(tiny: Tiny, memory_limit_bytes: int) -> None:
    keys = {"data__memory_limit_bytes": memory_limit_bytes, "train__epochs": 3}
    whole = run_training(tiny("whole", **keys))
    resumed = run_training(TrainRequest(resume=crash(tiny("crashed", **keys), step=9).path))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


VARIED = {
    "data__policy": "randaugment", "data__color_jitter": 0.3, "data__fill": "reflect", "data__mixup_alpha": 0.8,
    "data__cutmix_alpha": 1.0, "data__mix_per": "pair", "data__mix_until": 0.7, "data__sampler": "balanced",
    "data__repeats": 2, "objective__class_weights": "balanced",
}  # fmt: skip


@pytest.mark.parametrize("memory_limit_bytes", [0, 10**9])
def test_run_with_every_way_to_vary_mix_and_sample_goes_on_bit_for_bit(tiny: Tiny, memory_limit_bytes: int) -> None:
    keys = VARIED | {"data__memory_limit_bytes": memory_limit_bytes, "train__epochs": 3}
    whole = run_training(tiny("whole", **keys))
    resumed = run_training(TrainRequest(resume=crash(tiny("crashed", **keys), step=8).path))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


@pytest.mark.parametrize("key", sorted(VARIED))
def test_each_way_to_vary_mix_and_sample_changes_what_is_learnt(tiny: Tiny, key: str) -> None:
    always = {"data__max_shift": 0.3, "data__mixup_alpha": 0.8, "train__epochs": 1}
    plain = run_training(tiny("plain", **always))
    changed = run_training(tiny("changed", **{**always, key: VARIED[key], **NEEDS.get(key, {})}))
    weights = weights_of(plain)
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in weights_of(changed).items())


NEEDS = {"data__mixup_alpha": {"data__mix_rate": 0.5}}
"""What else is asked, where the plain run has the key already."""


def test_epochs_and_their_records_count_showings_with_repeats(tiny: Tiny) -> None:
    folder = run_training(tiny(data__repeats=3, data__batch_size=8, train__epochs=2))
    (began,) = kinds(folder, "fit")
    assert (began["steps_per_epoch"], began["end_step"]) == (7.0, 14)  # 42 images, two a batch, three times each
    assert kinds(folder, "step")[-1]["epoch"] == 2.0


def test_weighted_sampling_of_data_without_weights_is_told_before_anything_is_made(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.sampler=weighted: .*fruit has no sample weights; use balanced or shuffle"
    ):
        run_training(tiny(data__sampler="weighted"))
    assert list(tmp_path.iterdir()) == []


def test_table_with_weights_is_sampled_by_them(tiny: Tiny, own_images: Path) -> None:
    rows = [f"{path},{path.parent.name},{int(path.parent.name == 'kiwi') + 1}" for path in own_images.rglob("*.png")]
    table = own_images.parent / "table.csv"
    table.write_text("\n".join(["path,label,weight", *rows]) + "\n")
    _, plan = dry_run(tiny(None, data=table))
    assert plan.config.data.sampler == "weighted"
    weighted = run_training(tiny("weighted", data=table))
    shuffled = run_training(tiny("shuffled", data=table, data__sampler="shuffle"))
    assert not torch.equal(weights_of(weighted)["head.weight"], weights_of(shuffled)["head.weight"])


def test_newest_checkpoint_that_was_cut_short_is_told_and_the_run_goes_on_bit_for_bit(tiny: Tiny) -> None:
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


def test_all_checkpoints_damaged_is_told(tiny: Tiny) -> None:
    crashed = crash(tiny(), step=4)
    for path in list_checkpoints(crashed.checkpoints):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=f"^run={crashed.path}: none of its checkpoints can be used"):
        run_training(TrainRequest(resume=crashed.path))


def test_run_that_crashed_while_it_finished_goes_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_training(tiny("whole"))

    def full(*arguments: object) -> None:
        raise SaveError("the disk is full")

    monkeypatch.setattr(finish, "save_model", full)
    with pytest.raises(SaveError, match="the disk is full"):
        run_training(tiny("crashed"))
    monkeypatch.undo()
    resumed = run_training(TrainRequest(resume=whole.path.parent / "crashed"))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)
    assert kinds(resumed, "resume")[0]["step"] == 12
    assert [record["step"] for record in kinds(resumed, "step")][-1] == 12


def test_finished_steps_of_a_budget_are_not_followed_by_others(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise SaveError("the disk is full")

    monkeypatch.setattr(finish, "save_model", full)
    request = tiny(train__budget_s=60.0, train__epochs=1.0)
    with pytest.raises(SaveError):
        run_training(request)
    monkeypatch.undo()
    resumed = run_training(TrainRequest(resume=request.out))
    assert kinds(resumed, "end")[-1]["step"] == 6


def test_budget_goes_on_where_it_was(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OUTSIDE_S", 0.2)
    crashed = crash(tiny(train__budget_s=3.0, train__epochs=100_000), step=5)
    resumed = run_training(TrainRequest(resume=crashed.path))
    assert kinds(resumed, "resume")[0]["elapsed_s"] > 0
    assert kinds(resumed, "end")[0]["elapsed_s"] < 3.5


def test_run_that_crashed_before_its_images_were_read_goes_on(tiny: Tiny) -> None:
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


def test_what_the_crash_left_half_written_is_swept(tiny: Tiny) -> None:
    crashed = crash(tiny(), step=4)
    half = crashed.checkpoints / ".step-000000004.safetensors.ab12.tmp"
    half.write_bytes(b"half")
    run_training(TrainRequest(resume=crashed.path))
    assert not half.exists()


def test_complete_run_is_left_as_it_is(tiny: Tiny) -> None:
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
        {"data": "digits"},
        {"recipe": "digits"},
        {"model": "vit_pico"},
        {"values": {"train.seed": 1}},
        {"out": Path("x")},
    ],
)
def test_going_on_takes_no_other_options(tiny: Tiny, changes: dict[str, Any]) -> None:
    folder = run_training(tiny(train__epochs=0.2))
    with pytest.raises(ConfigError) as caught:
        run_training(replace(TrainRequest(resume=folder.path), **changes))
    assert str(caught.value) == (
        f"resume={folder.path}: takes no other options, a run goes on as it began; leave them out"
    )


def test_going_on_with_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match=f"^run={tmp_path}: is a folder without config.yaml, not a run folder"):
        run_training(TrainRequest(resume=tmp_path))


@pytest.mark.parametrize("change", ["remove", "alter", "add", "move"])
def test_data_that_changed_since_is_told(tiny: Tiny, own_images: Path, change: str) -> None:
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
    assert message.startswith(f"run={crashed.path}: its data changed since it began (fingerprint ")
    assert f", was {fingerprint}); restore {own_images}, or train anew" in message
    assert message.count(fingerprint) == 1


def test_data_that_was_renamed_only_is_the_same_data(tiny: Tiny, own_images: Path) -> None:
    crashed = crash(tiny(data=own_images), step=4)
    (own_images / "kiwi" / "07.png").rename(own_images / "kiwi" / "another.png")
    run_training(TrainRequest(resume=crashed.path))


def test_architecture_that_was_edited_is_told(tiny: Tiny) -> None:
    crashed = crash(tiny(), step=4)
    text = crashed.config.read_text()
    assert "embed_dim: 16" in text
    crashed.config.write_text(text.replace("embed_dim: 16", "embed_dim: 20"))
    with pytest.raises(RunError, match=r"does not fit this run, .*train again with --out"):
        run_training(TrainRequest(resume=crashed.path))


def test_run_that_was_moved_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    crashed = crash(tiny(), step=4)
    moved = Path(shutil.move(crashed.path, tmp_path / "elsewhere"))
    assert run_training(TrainRequest(resume=moved)).model.exists()


# Loss that is not finite, from end to end.


class NanFrom(Criterion):
    """A sound criterion that breaks at a call, for ever or for a while."""

    def __init__(self, first: int, last: float = math.inf) -> None:
        super().__init__()
        self.calls, self.first, self.last = 0, first, last
        self.sound = CrossEntropy()

    def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        self.calls += 1
        return self.sound(logits, targets, total) * (math.nan if self.first <= self.calls <= self.last else 1.0)


def test_loss_that_stays_nan_stops_the_run_and_saves_finite_weights(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "build_task", lambda config, counts, teacher: Supervised(NanFrom(5)))
    request = tiny(train__max_retries=1)
    with pytest.raises(NonFiniteError, match=r"^step=0: the loss is not finite, also after 1 returns to a checkpoint"):
        run_training(request)
    assert request.out is not None
    folder = RunFolder(request.out)
    assert not folder.model.exists()
    assert [record["cause"] for record in kinds(folder, "refused")] == ["the loss"] * 4


def test_loss_that_is_nan_for_a_while_does_not_stop_the_run(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "build_task", lambda config, counts, teacher: Supervised(NanFrom(5, 8)))
    folder = run_training(tiny())
    assert kinds(folder, "end")[0]["refused"] == 2
    assert all(tensor.isfinite().all() for tensor in weights_of(folder).values())


def test_rate_that_is_far_too_high_leaves_finite_weights(tiny: Tiny) -> None:
    request = tiny(optim__lr=1e30, optim__clip_norm=0)
    with contextlib.suppress(NonFiniteError):
        run_training(request)
    assert request.out is not None
    for path in list_checkpoints(request.out / "checkpoints"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_wish_to_stop_is_passed_on(tiny: Tiny) -> None:
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
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_run_attends_by_the_kernel_that_was_asked(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    called: set[str] = set()
    attend = Attention.gather

    def gather(self: Attention, *args: Any, **kwargs: Any) -> Tensor:
        if self.training:
            called.add(self.kernel)
        return attend(self, *args, **kwargs)

    monkeypatch.setattr(Attention, "gather", gather)
    run_training(tiny(train__attention_kernel=kernel, train__epochs=1))
    assert called == {kernel}
