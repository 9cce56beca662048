import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import vitreous as vt
from vitreous.data.sources import FileSource, open_source
from vitreous.data.sources.annotations import read
from vitreous.errors import ConfigError, DataError, NotARunError
from vitreous.model.weights import load_model, read_metadata
from vitreous.recipe.files import read_config
from vitreous.training.finish.without_labels import measure_spread
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.signals import Interrupted
from vitreous.training.measure.instruments import Instruments
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.series import members
from vitreous.training.start import run_training

Tiny = Callable[..., TrainRequest]
PLAIN = {"model__proj_drop_rate": 0.0, "model__drop_path_rate": 0.0}


@pytest.fixture
def flat(images_folder: Path, tmp_path: Path) -> Path:
    """The images of all classes in one folder, and every second one in a folder inside it."""
    folder = tmp_path / "flat"
    (folder / "more").mkdir(parents=True)
    for number, image in enumerate(sorted(images_folder.glob("*/*.png"))):
        shutil.copy(image, folder / ("more" if number % 2 else "") / f"{number}.png")
    return folder


def weights_of(folder: RunFolder) -> dict[str, Tensor]:
    return load_model(folder.model).state_dict()


def kinds(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] == kind]


class Stop:
    """A listener that sends Ctrl-C, or fails like a power cut, at the n-th step of all stages."""

    def __init__(self, step: int, *, dies: bool) -> None:
        self.left, self.dies = step, dies

    def __call__(self, kind: str, fields: Any) -> None:
        self.left -= kind == "step"
        if kind == "step" and self.left == 0:
            if self.dies:
                raise RuntimeError("the power is gone")
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("method", ["mae", "simmim", "lejepa"])
def test_images_without_labels_give_a_model_with_features_but_no_classes(method: str, flat: Path, tiny: Tiny) -> None:
    folder = run_training(tiny(data=flat, objective__loss=method, train__epochs=1.0))
    config, metadata = read_config(folder.config), read_metadata(folder.model)
    assert (config.data.task, config.objective.loss, config.recipe) == ("unlabeled", method, "pretrain")
    assert metadata["classes"] == []
    assert metadata["pretraining"]["method"] == method
    assert 1 <= metadata["pretraining"]["effective_rank"] <= 16
    assert folder.reconstructions.is_file() == (method != "lejepa")
    assert not any("accuracy" in record for record in kinds(folder, "step"))
    with pytest.raises(NotARunError, match="was pretrained without labels and knows no classes; train it on labeled"):
        vt.load_run(folder.path).predict(flat / "0.png")
    assert vt.embed(folder.path, flat).vectors.shape == (61, 16)


def test_pretrained_weights_are_those_that_training_starts_from(
    flat: Path, tiny: Tiny, images_folder: Path, tmp_path: Path
) -> None:
    folder = run_training(tiny("pretrained", data=flat, objective__loss="mae", train__epochs=1.0))
    keys = {"train.pretrained": str(folder.path), "train.epochs": 0.0, "train.device": "cpu", "data.img_size": (8, 12)}
    labeled = run_training(TrainRequest(data=str(images_folder), values=keys, out=tmp_path / "labeled"))
    before, after = weights_of(folder), weights_of(labeled)
    assert set(after) - set(before) == {"head.weight", "head.bias"}
    torch.testing.assert_close({name: after[name] for name in before}, before, atol=0, rtol=0)


def test_images_to_test_on_are_held_out_although_unlabeled_images_have_none(
    flat: Path, tiny: Tiny, images_folder: Path
) -> None:
    folder = run_training(tiny("pretrained", data=flat, objective__loss="mae", train__epochs=0.2))
    request = TrainRequest(data=str(images_folder), values={"train.pretrained": str(folder.path)})
    surveyed, plan = plan_run(request, lambda *_: None)
    assert surveyed.facts.num_test == 13
    assert any("was trained on" in note and "test images" in note for note in plan.notes)


@pytest.mark.parametrize("stage", [{"objective__loss": "mae"}, {"train__pretrain_ratio": 0.5}])
def test_same_seed_gives_the_same_weights(stage: dict[str, Any], tiny: Tiny) -> None:
    first, second = (run_training(tiny(name, **stage)) for name in ("a", "b"))
    torch.testing.assert_close(weights_of(first), weights_of(second), atol=0, rtol=0)


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize(
    ("stage", "step"),
    [({"objective__loss": "mae"}, 5), ({"train__pretrain_ratio": 0.5}, 3), ({"train__pretrain_ratio": 0.5}, 9)],
)
def test_resumed_run_ends_with_the_same_weights(stage: dict[str, Any], step: int, dies: bool, tiny: Tiny) -> None:
    whole = run_training(tiny("whole", **stage))
    request = tiny("stopped", **stage, train__checkpoint_every_s=0)
    with pytest.raises(RuntimeError if dies else Interrupted) as stopped:
        run_training(request, Stop(step, dies=dies))
    assert dies or "stopped at step" in str(stopped.value)
    assert request.out is not None
    resumed = run_training(TrainRequest(resume=request.out))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), atol=0, rtol=0)


def test_stage_without_labels_takes_its_share_of_the_epochs_and_the_rest_starts_from_its_weights(tiny: Tiny) -> None:
    folder = run_training(tiny(train__pretrain_ratio=0.25, train__epochs=4.0, **PLAIN))
    stage = RunFolder(folder.pretraining)
    num_steps = [kinds(each, "step")[-1]["step"] for each in (stage, folder)]
    per_epoch = kinds(folder, "fit")[0]["steps_per_epoch"]
    assert num_steps == [per_epoch, 3 * per_epoch]
    assert stage.reconstructions.is_file()
    assert kinds(folder, "pretrained")[0]["source"] == str(stage.model)
    assert not any("accuracy" in record for record in kinds(stage, "step"))
    assert all("accuracy" in record for record in kinds(folder, "step"))
    assert vt.load_run(folder.path).classes == ("apple", "kiwi", "plum")


def test_one_budget_is_shared_by_both_stages(tiny: Tiny, quick: Instruments) -> None:
    """Each reading of the clock takes a tenth of a second, so the test does not depend on the machine."""
    ticks = iter(range(1_000_000))
    instruments = replace(quick, clock=lambda: next(ticks) / 10)
    request = tiny(train__pretrain_ratio=0.5, train__budget_s=60.0, train__epochs=100.0)
    folder = run_training(request, instruments=instruments)
    ends = [kinds(each, "end")[0]["elapsed_s"] for each in (RunFolder(folder.pretraining), folder)]
    assert 20 < ends[0] <= 33
    assert ends[0] < ends[1] <= 61


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train__freeze_blocks": 1}, r"train\.freeze_blocks=1: does not suit objective\.loss=mae"),
        ({"data__mixup_alpha": 0.3}, r"data\.mixup_alpha=0\.3: does not suit objective\.loss=mae"),
        ({"model__patch_drop_rate": 0.4}, r"model\.patch_drop_rate=0\.4: does not suit objective\.loss=mae"),
        ({"train__pretrain_ratio": 0.4}, r"train\.pretrain_ratio=0\.4: does not suit objective\.loss=mae"),
        ({"train__parallel": "fsdp"}, r"train\.parallel=fsdp: .*; use train\.parallel=ddp"),
        ({"data__img_size": 4}, r"model\.patch_size=4: an image has only one patch"),
        ({"model__patch_size": 1, "data__in_chans": 1}, r"model\.patch_size=1: patches of a single value"),
        ({"objective__loss": "lejepa", "data__repeats": 1}, r"data\.repeats=1: .*; use 2 or more"),
        ({"objective__loss": "lejepa", "train__micro_batches": 2}, r"train\.micro_batches=2: .* all images of a batch"),
    ],
)
def test_keys_that_need_labels_are_refused(keys: dict[str, Any], message: str, tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=message):
        run_training(tiny(**({"objective__loss": "mae"} | keys)))


@pytest.mark.parametrize(("key", "value"), [("mask_ratio", 0.5), ("decoder_depth", 3), ("regularity_weight", 0.1)])
def test_keys_that_have_no_effect_with_labels_are_refused(key: str, value: float, tiny: Tiny) -> None:
    with pytest.raises(
        ConfigError, match=rf"objective\.{key}={value}: has no effect with objective\.loss=cross_entropy"
    ):
        run_training(tiny(**{f"objective__{key}": value}))


def test_seeds_cannot_be_compared_without_an_accuracy(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"objective\.loss=simmim: has no accuracy"):
        members(replace(tiny(objective__loss="simmim"), seeds=3))


def test_weights_can_be_trained_further_without_labels(tiny: Tiny, tmp_path: Path, images_folder: Path) -> None:
    first = run_training(tiny("first", objective__loss="mae", train__epochs=0.2))
    keys = {"train.pretrained": str(first.path), "objective.loss": "simmim", "train.epochs": 0.2, "train.device": "cpu"}
    folder = run_training(TrainRequest(data=str(images_folder), values=keys, out=tmp_path / "second"))
    assert kinds(folder, "pretrained")[0]["changes"][-1] == "the head is left out, as there are no labels"
    assert list(weights_of(folder)) == list(weights_of(first))


def test_a_loss_of_labels_cannot_use_unlabeled_images(flat: Path, tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"objective\.loss=cross_entropy: learns from labels, but data\.task=unlabel"):
        run_training(tiny(data=flat, data__task="unlabeled"))


def test_unlabeled_folder_has_the_images_of_all_folders_and_keeps_its_splits(tmp_path: Path, flat: Path) -> None:
    assert len(open_source(flat, task="unlabeled")) == 61
    split = tmp_path / "split"
    shutil.copytree(flat, split / "train")
    shutil.copytree(flat / "more", split / "test")
    source = open_source(split, needs_labels=False)
    assert isinstance(source, FileSource)
    assert source.is_unlabeled
    assert [(source.splits == name).sum() for name in ("train", "test", "")] == [61, 30, 0]


def test_export_of_a_labeling_tool_is_read_once(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, opened, parse = range(0, 12, 2), list[str](), read.read_json
    document = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in numbers],
        "annotations": [{"image_id": number, "category_id": number % 4} for number in numbers],
        "categories": [{"id": 0, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (flat / "labels.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(read, "read_json", lambda path: (opened.append(path.name), parse(path))[1])
    surveyed, _ = plan_run(TrainRequest(data=str(flat), values={"objective.loss": "mae"}), lambda *_: None)
    assert (opened, surveyed.source.classes) == (["labels.json"], ("a", "b"))


def test_class_folders_and_named_sets_have_labels(images_folder: Path, tmp_path: Path) -> None:
    for data, num_classes in ((images_folder, 3), ("digits", 10)):
        assert len(open_source(data, needs_labels=False).classes) == num_classes
    with pytest.raises(DataError, match=r"data\.task=unlabeled: digits is not a folder of images"):
        open_source("digits", task="unlabeled")
    with pytest.raises(DataError, match="holds no image file"):
        open_source(tmp_path, task="unlabeled")


def test_collapsed_features_are_noticed_and_others_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(100, 24, generator=generator) + 3
    along_one = torch.randn(100, 1, generator=generator) * torch.ones(24) + 0.01 * healthy
    equal = torch.ones(100, 24) + 1e-4 * healthy
    found = [measure_spread(features) for features in (healthy, along_one, equal, torch.ones(20, 3), healthy[:2])]
    assert [bool(each.warning) for each in found] == [False, True, True, True, False]
    assert found[0].effective_rank > 20
    assert found[1].effective_rank < 1.5
    assert "features=24: have collapsed, as 100 images hardly differ" in found[2].warning


def test_effective_rank_of_equal_singular_values_is_their_number() -> None:
    features = torch.cat([torch.eye(6), -torch.eye(6)])
    assert measure_spread(features).effective_rank == pytest.approx(6)
    assert measure_spread(features).spread == pytest.approx(1)


def test_reconstructions_show_image_visible_part_and_result(flat: Path, tiny: Tiny) -> None:
    folder = run_training(tiny(data=flat, objective__loss="mae", train__epochs=0.2))
    with Image.open(folder.reconstructions) as picture:
        rows = min(8, read_metadata(folder.model)["pretraining"]["num_images"])
        # Images of 8x12 px are enlarged 13 times, with a frame of 4 px.
        assert picture.size == (3 * (12 * 13 + 8), rows * (8 * 13 + 8))
