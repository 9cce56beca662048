"""Teachers that see the training images before the first step: fitted heads, fixed targets, size and budget."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vitreous.errors import ConfigError, DamagedFileError
from vitreous.model.backbone import Backbone
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.cost.count import count_flops
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import load_model, save_model
from vitreous.recipe.files import read_config
from vitreous.recipe.pace import Pace
from vitreous.training.folder.records import Recorder, ignore, read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared, load_data
from vitreous.training.machine.distributed import SINGLE
from vitreous.training.measure.instruments import REAL, Instruments
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.start import dry_run, run_training
from vitreous.training.weights.fitted_head import LEAST_PER_CLASS
from vitreous.training.weights.teacher import Teacher
from vitreous.training.weights.teaching import MOST_SHARE, teach

Tiny = Callable[..., TrainRequest]
CLASSES = ["apple", "kiwi", "plum"]
STATISTICS = {"mean": (0.5, 0.25, 0.375), "std": (0.25, 0.5, 0.125)}
FIXED = {"objective__teacher_views": "fixed"}


def network(**changes: Any) -> VisionTransformer:
    values: dict[str, Any] = {
        "img_size": (16, 24), "patch_size": 4, "in_chans": 3, "num_classes": 3, "embed_dim": 24, "depth": 1,
        "num_heads": 2, "init": "xavier",
    }  # fmt: skip
    return build_model(ModelConfig(**{**values, **changes}), generator=torch.Generator().manual_seed(4)).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Save a network as a teacher, and return its path."""

    def save(classes: list[str] | None = None, **changes: Any) -> str:
        preprocess = {"img_size": (16, 24), "in_chans": 3, **STATISTICS}
        path = tmp_path / "teacher.safetensors"
        save_model(path, network(**changes), {"classes": classes or [], "preprocess": preprocess})
        return str(path)

    return save


def records(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] == kind]


def prepared_for(request: TrainRequest, tmp_path: Path) -> Prepared:
    survey, plan = plan_run(request, ignore)
    return load_data(plan.config, survey, Recorder(tmp_path / "records.jsonl"))


def taught(prepared: Prepared, tmp_path: Path, clock: Callable[[], float] = REAL.clock) -> Tensor | None:
    file, recorder = tmp_path / "given.safetensors", Recorder(tmp_path / "records.jsonl")
    return teach(
        prepared.teacher, prepared.config, prepared.survey, prepared.train, file, recorder, SINGLE, clock
    )  # fmt: skip


def whole_images(prepared: Prepared) -> Tensor:
    """Return the training images as the teacher was trained to see them, resized by Pillow."""
    numbers = [int(number) for number in prepared.train.source_indices]
    files = [prepared.survey.source.describe(number) for number in numbers]
    root, images = Path(prepared.config.data.source), []
    for file in files:
        path = Path(file) if Path(file).is_file() else root / file
        array = np.asarray(Image.open(path).resize((24, 16), Image.Resampling.BICUBIC))
        images.append(torch.from_numpy(array.copy()).permute(2, 0, 1) / 255)
    mean, std = (torch.tensor(STATISTICS[name])[:, None, None] for name in ("mean", "std"))
    return (torch.stack(images) - mean) / std


# What the teacher gives.


@pytest.mark.parametrize("flip", [False, True])
def test_fixed_targets_are_labels_mixed_with_the_probabilities_for_whole_images(
    tiny: Tiny, saved: Callable[..., str], tmp_path: Path, flip: bool
) -> None:
    keys = {"objective__distill_weight": 0.3, "objective__distill_temperature": 4.0, "data__min_crop_area": 0.2}
    keys |= FIXED | {"data__flip": flip, "data__fit": "squash"}
    prepared = prepared_for(tiny(objective__teacher=saved(CLASSES), **keys), tmp_path)
    images, model = whole_images(prepared), network()
    with torch.no_grad():
        logits = (model(images) + model(images.flip(-1))) / 2 if flip else model(images)
    onehot = F.one_hot(prepared.train.labels, 3).float()
    expected = 0.7 * onehot + 0.3 * (logits / 4).softmax(dim=1)
    found = taught(prepared, tmp_path)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert "cross-validated" not in records_text(tmp_path)


def records_text(tmp_path: Path) -> str:
    return next(r["text"] for r in read_records(tmp_path / "records.jsonl") if r["kind"] == "taught")


@pytest.mark.parametrize(
    ("classes", "num_classes"), [(None, 0), (None, 7), (["apple", "plum", "kiwi"], 3), (["a", "b", "c"], 3)]
)
def test_teacher_without_a_head_for_the_classes_gets_one_that_says_how_accurate_it_is(
    tiny: Tiny, saved: Callable[..., str], tmp_path: Path, classes: list[str] | None, num_classes: int
) -> None:
    source = saved(classes, num_classes=num_classes)
    plan = dry_run(tiny(None, objective__teacher=source))[1]
    assert plan.notes[0] == (
        f"objective.teacher={source}: has no head for the 3 classes of the data; one is fitted to its features of the "
        "training images"
    )
    prepared = prepared_for(tiny(objective__teacher=source, **FIXED), tmp_path)
    found = taught(prepared, tmp_path)
    assert found is not None
    assert (found.argmax(dim=1) == prepared.train.labels).all()
    (record,) = [r for r in read_records(tmp_path / "records.jsonl") if r["kind"] == "taught"]
    assert record["cross_validated"]["accuracy"] > 0.9
    assert record["text"].startswith("teacher: saw 42 training images at 16x24 px in ")
    assert record["text"].endswith(f"cross-validated accuracy {record['cross_validated']['accuracy']:.1%}")


def test_head_for_steps_is_fitted_to_what_the_steps_show(tiny: Tiny, saved: Callable[..., str], tmp_path: Path) -> None:
    prepared = prepared_for(tiny(objective__teacher=saved(None, num_classes=5)), tmp_path)
    assert prepared.teacher is not None
    assert taught(prepared, tmp_path) is None
    from vitreous.training.weights.teacher import build_teacher

    teacher = build_teacher(prepared.teacher, prepared.config)
    assert teacher is not None
    images = prepared.preprocess.normalize(prepared.train.take(np.arange(len(prepared.train))))
    assert (teacher(images).argmax(dim=1) == prepared.train.labels).float().mean() > 0.9


def test_images_that_the_budget_does_not_allow_keep_their_labels(
    tiny: Tiny, saved: Callable[..., str], tmp_path: Path, quick: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.training.step.features._TIMED_BATCH", 10)
    monkeypatch.setattr("vitreous.training.weights.teaching.LEAST_PER_CLASS", 1)
    assert LEAST_PER_CLASS > 1
    request = tiny(objective__teacher=saved(CLASSES), train__budget_s=50.0)
    survey, plan = plan_run(request, ignore, quick)
    prepared = load_data(plan.config, survey, Recorder(tmp_path / "records.jsonl"))
    now = iter([0.0, 0.0, 0.5 * MOST_SHARE * 50, 1.1 * MOST_SHARE * 50, 99.0, 99.0])
    found = taught(prepared, tmp_path, lambda: next(now))
    assert found is not None
    is_label = (found == F.one_hot(prepared.train.labels, 3)).all(dim=1)
    assert int((~is_label).sum()) == 20
    assert "saw 20 of 42 training images" in records_text(tmp_path)


# Whole runs.


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the images of each forward pass of a model of the teacher's width."""
    found: list[int] = []
    pooled = Backbone.pooled

    def counted(self: Any, images: Tensor) -> Tensor:
        if self.config.embed_dim == 24:
            found.append(len(images))
        return pooled(self, images)

    for owner in Backbone, VisionTransformer:
        if "pooled" in vars(owner):
            monkeypatch.setattr(owner, "pooled", counted)
    return found


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("views", ["fixed", "consistent"])
def test_run_resumes_bit_for_bit_without_asking_the_teacher_again(
    tiny: Tiny, saved: Callable[..., str], passes: list[int], views: str, num_classes: int
) -> None:
    keys: dict[str, Any] = {
        "objective__teacher": saved(None, num_classes=num_classes), "objective__teacher_views": views,
        "data__mixup_alpha": 0.4, "data__flip": False, "train__checkpoint_every_s": 0,
    }  # fmt: skip
    whole = run_training(tiny("whole", **keys))
    if views == "fixed":
        assert passes == [42]  # each training image once, and no step runs the teacher
    interrupted = tiny("interrupted", **keys)

    def stop(name: str, fields: Any) -> None:
        if name == "step" and fields["step"] >= 5:
            raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="the power is gone"):
        run_training(interrupted, stop)
    passes.clear()
    resumed = run_training(TrainRequest(resume=interrupted.out))
    assert views == "consistent" or passes == []
    first, second = (load_model(folder.model).state_dict() for folder in (whole, resumed))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not resumed.teacher.exists()
    untaught = run_training(tiny("untaught", data__mixup_alpha=0.4, data__flip=False))
    other = load_model(untaught.model).state_dict()
    # The fitted head is always right and certain about these images; the consistent one sees mixed images.
    is_certain = views == "fixed" and num_classes == 0
    assert all(torch.equal(tensor, other[name]) for name, tensor in first.items()) == is_certain


def test_what_a_teacher_gave_to_another_run_is_refused_and_can_be_made_again(
    tiny: Tiny, saved: Callable[..., str], tmp_path: Path
) -> None:
    prepared = prepared_for(tiny(objective__teacher=saved(CLASSES), **FIXED), tmp_path)
    expected, file = taught(prepared, tmp_path), tmp_path / "given.safetensors"
    for content in (b"cut short", file.read_bytes()[:-8]):
        file.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"; delete it to let the teacher see the images again$"):
            taught(prepared, tmp_path)
    from vitreous.tensor_file import write_tensor_file

    write_tensor_file(file, {"targets": torch.ones(41, 3)}, {})
    with pytest.raises(DamagedFileError) as caught:
        taught(prepared, tmp_path)
    assert str(caught.value) == (
        f"{file}: does not belong to this run; delete it to let the teacher see the images again"
    )
    file.unlink()
    torch.testing.assert_close(taught(prepared, tmp_path), expected, rtol=0, atol=0)


def test_layers_that_never_change_are_still_computed_once_with_a_fixed_teacher(
    tiny: Tiny, saved: Callable[..., str]
) -> None:
    start = run_training(tiny("start")).path
    keys: dict[str, Any] = {"train__pretrained": str(start), "train__freeze": "backbone", "data__flip": False}
    keys |= {"data__max_shift": 0.0, "data__max_scale": 0.0, "data__max_rotate_deg": 0.0, "data__min_crop_area": 1.0}
    plain = run_training(tiny("plain", **keys))
    probe = run_training(tiny("probe", objective__teacher=saved(CLASSES), **FIXED, **keys))
    first, second = (load_model(folder.model).head.weight for folder in (plain, probe))
    assert not torch.equal(first, second)


# The plan.


def test_time_budget_decides_that_the_teacher_sees_each_image_once(
    tiny: Tiny, saved: Callable[..., str], quick: Instruments
) -> None:
    source, budget = saved(CLASSES), {"train__budget_s": 30.0}

    def planned(**keys: Any) -> Any:
        return dry_run(tiny(None, objective__teacher=source, **keys), instruments=quick)[1]

    plan = planned(**budget)
    (choice,) = [choice for choice in plan.choices if choice.key == "objective.teacher_views"]
    assert (choice.value, choice.reason) == ("fixed", "suits train.budget_s, which you set")
    others: list[dict[str, Any]] = [{}, budget | {"objective__teacher_views": "consistent"}]
    others += [budget | {"objective__distill": kind} for kind in ("hard", "feature")]
    others += [budget | {"objective__bce_threshold": 0.2}]
    for keys in others:
        assert planned(**keys).config.objective.teacher_views == "consistent"


@pytest.mark.parametrize("views", ["consistent", "fixed"])
def test_only_a_teacher_in_the_steps_makes_them_slower(
    tiny: Tiny, saved: Callable[..., str], quick: Instruments, monkeypatch: pytest.MonkeyPatch, views: str
) -> None:
    calls: list[int] = []
    forward = Teacher.forward

    def counted(self: Teacher, images: Tensor) -> Tensor:
        calls.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Teacher, "forward", counted)
    keys = {"objective__teacher": saved(None, num_classes=0), "objective__teacher_views": views}
    dry_run(tiny(None, train__budget_s=30, **keys), instruments=quick)
    assert (len(calls) > 1) == (views == "consistent")


def test_time_of_the_teacher_is_taken_from_the_epochs_of_the_student(tiny: Tiny, saved: Callable[..., str]) -> None:
    epochs = []
    for images_per_s in (1e9, 42 / 10, 42 / 1000):
        instruments = Instruments(
            training_pace=lambda config, teacher: Pace(((0.0, 1.0, 0.1),)), features_per_s=lambda *_, s=images_per_s: s
        )
        keys = {"objective__teacher": saved(CLASSES), "train__budget_s": 108.0, "train__epochs": 1e4}
        plan = plan_run(tiny(None, data__flip=False, **keys), ignore, instruments)[1]
        assert plan.pace is not None
        epochs.append(108 - 8 - plan.pace.before_s)
    assert epochs == pytest.approx([100, 90, 100 - MOST_SHARE * 108])


def test_teacher_gets_the_largest_size_that_takes_a_fifth_of_the_budget(tiny: Tiny, saved: Callable[..., str]) -> None:
    source, native = saved(None, num_classes=0, img_size=(80, 80)), network(img_size=(80, 80)).config

    def planned(seconds_at_native: float, **keys: Any) -> Any:
        per_flop = seconds_at_native / count_flops(native) / 42
        instruments = Instruments(
            training_pace=lambda config, teacher: Pace(((0.0, 1.0, 0.01),)),
            features_per_s=lambda model, *_: 1 / (per_flop * count_flops(model.config)),
        )
        request = tiny(None, objective__teacher=source, data__flip=False, **keys)
        return dry_run(request, instruments=instruments)[1].config.objective.teacher_img_size

    assert planned(0.0001, train__budget_s=60.0) == (64, 64)  # 256 patches
    assert planned(1e6, train__budget_s=60.0) == (28, 28)  # 49 patches
    middle = planned(30.0, train__budget_s=60.0)
    seconds = [30 * count_flops(replace(native, img_size=(side, side))) / count_flops(native)
               for side in (middle[0], middle[0] + 4)]  # fmt: skip
    assert seconds[0] <= 0.2 * 60 < seconds[1]
    assert planned(0.0001, objective__teacher_img_size=(20, 28)) == (20, 28)


def test_teacher_with_a_head_keeps_its_size(tiny: Tiny, saved: Callable[..., str], quick: Instruments) -> None:
    plan = dry_run(tiny(None, objective__teacher=saved(CLASSES), train__budget_s=30.0), instruments=quick)[1]
    assert plan.config.objective.teacher_img_size is None


def test_size_that_the_patches_of_the_teacher_do_not_tile_is_refused(tiny: Tiny, saved: Callable[..., str]) -> None:
    source = saved(CLASSES)
    with pytest.raises(ConfigError) as caught:
        dry_run(tiny(None, objective__teacher=source, objective__teacher_img_size=(18, 25)))
    assert str(caught.value) == (
        f"objective.teacher_img_size=18x25: is not tiled by the patches of {source}, which have 4 px; use 16x24"
    )
    dry_run(tiny(None, objective__teacher=source, objective__teacher_img_size=(16, 24)))


def test_configuration_of_a_run_repeats_it(tiny: Tiny, saved: Callable[..., str], tmp_path: Path) -> None:
    request = tiny("first", objective__teacher=saved(None, num_classes=0), **FIXED)
    first = run_training(request)
    config = read_config(first.config)
    assert config.objective.teacher_views == "fixed"
    second = run_training(replace(request, recipe=str(first.config), values={}, out=tmp_path / "second"))
    weights = [load_model(folder.model).state_dict() for folder in (first, second)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_folds_are_taught_by_heads_that_never_saw_their_test_images(
    tiny: Tiny, saved: Callable[..., str], tmp_path: Path
) -> None:
    from vitreous.training.series import run_series

    folders: list[RunFolder] = []
    request = replace(tiny("series", objective__teacher=saved(None, num_classes=0), **FIXED), folds=2)
    run_series(request, folders.append)
    for folder in folders:
        (record,) = records(folder, "taught")
        (data,) = records(folder, "data")
        assert record["num_images"] == data["num_train"] < 61
