import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vitreous.errors import NotARunError, RunError
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import load_model, save_model
from vitreous.model.weights.native import fingerprint
from vitreous.recipe.files import read_config
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import dry_run, run_training
from vitreous.training.weights.teacher import Teacher, build_teacher, open_teacher, with_head

Tiny = Callable[..., TrainRequest]
CLASSES = ("apple", "kiwi", "plum")
OF_RUN = ((0.5, 0.25, 0.375), (0.25, 0.5, 0.125))
PLAIN3, PLAIN1 = ((0.0,) * 3, (1.0,) * 3), ((0.0,), (1.0,))


def model(**changes: Any) -> VisionTransformer:
    values: dict[str, Any] = {
        "img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 3, "embed_dim": 24, "depth": 1,
        "num_heads": 2, "init": "xavier",
    }  # fmt: skip
    return build_model(ModelConfig(**{**values, **changes}), generator=torch.Generator().manual_seed(4))


def pixels(size: tuple[int, int] = (8, 12), in_chans: int = 3) -> Tensor:
    """Draw random images with 8-bit values, scaled to [0, 1]."""
    generator = torch.Generator().manual_seed(6)
    return torch.randint(256, (2, in_chans, *size), generator=generator) / 255


def normalized(values: Tensor, statistics: tuple[tuple[float, ...], ...]) -> Tensor:
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in statistics)
    return (values - mean) / std


@pytest.fixture(scope="module")
def own_teacher(images_folder: Path, tmp_path_factory: pytest.TempPathFactory, tiny_keys: dict[str, Any]) -> Path:
    """A finished run on the same images, with another width and image size. Tests must not change it."""
    values = tiny_keys | {"model.embed_dim": 24, "data.img_size": (16, 24), "train.epochs": 1.0}
    out = tmp_path_factory.mktemp("teacher") / "run"
    return run_training(TrainRequest(data=str(images_folder), values=values, out=out)).path


def kinds(folder: RunFolder, wanted: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] == wanted]


# Preprocessing.


def test_images_get_the_normalization_of_the_teacher() -> None:
    own = ((0.125, 0.5, 0.75), (0.5, 0.375, 0.25))
    teacher = Teacher(model(), run_statistics=OF_RUN, own_statistics=own)
    torch.testing.assert_close(teacher.convert(normalized(pixels(), OF_RUN)), normalized(pixels(), own))


@pytest.mark.parametrize("size", [(16, 24), (5, 31)])
def test_images_are_resized_nearly_as_in_pillow(size: tuple[int, int]) -> None:
    teacher = Teacher(model(img_size=size, patch_size=1), run_statistics=OF_RUN, own_statistics=PLAIN3)
    images = (60 + (130 * pixels()).round()) / 255  # away from black and white, where Pillow clips after each axis
    found = teacher.convert(normalized(images, OF_RUN))
    for image, converted in zip(images, found, strict=True):
        array = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        resized = Image.fromarray(array).resize(size[::-1], Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
        torch.testing.assert_close(converted, expected, rtol=0, atol=1.5 / 255)  # Pillow rounds after each axis


def test_colors_become_gray_as_in_pillow() -> None:
    found = Teacher(model(in_chans=1), run_statistics=OF_RUN, own_statistics=PLAIN1).convert(
        normalized(pixels(), OF_RUN)
    )
    for image, converted in zip(pixels(), found, strict=True):
        gray = Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).convert("L")
        torch.testing.assert_close(converted[0], torch.from_numpy(np.array(gray)) / 255, rtol=0, atol=1.01 / 255)


def test_gray_becomes_three_equal_channels() -> None:
    gray = pixels(in_chans=1)
    found = Teacher(model(), run_statistics=((0.5,), (0.25,)), own_statistics=PLAIN3).convert(
        normalized(gray, ((0.5,), (0.25,)))
    )
    torch.testing.assert_close(found, gray.expand(-1, 3, -1, -1))


def test_teacher_gives_the_logits_of_its_model_in_evaluation_mode_without_gradients() -> None:
    own = model(pos_drop_rate=0.5, drop_path_rate=0.5).train()
    images = normalized(pixels(), OF_RUN).requires_grad_()
    found = Teacher(own, run_statistics=OF_RUN, own_statistics=PLAIN3)(images)
    assert not found.requires_grad
    torch.testing.assert_close(found, own.eval()(pixels()).detach())


def test_patches_are_a_map_of_the_last_tokens() -> None:
    own = model()
    found = Teacher(own, run_statistics=OF_RUN, own_statistics=PLAIN3, gives_patches=True)(normalized(pixels(), OF_RUN))
    expected = own.forward_features(pixels())[:, 1:].detach()
    assert found.shape == (2, 24, 2, 3)
    torch.testing.assert_close(found.flatten(2).mT, expected)


# Sources.


def run_config(tiny: Tiny, **keys: Any) -> RunConfig:
    return dry_run(tiny(None, **keys))[1].config


def test_teacher_from_a_run_has_the_statistics_of_that_run(own_teacher: Path, tiny: Tiny) -> None:
    config = run_config(tiny, objective__teacher=str(own_teacher))
    config = replace(config, data=replace(config.data, mean=OF_RUN[0], std=OF_RUN[1]))
    teacher = build_teacher(open_teacher(str(own_teacher)), config)
    theirs = read_config(RunFolder(own_teacher).config).data
    assert teacher is not None
    assert theirs.mean is not None
    assert theirs.std is not None
    assert theirs.mean != OF_RUN[0]
    for name, numbers in (("own_mean", theirs.mean), ("own_std", theirs.std), ("mean", OF_RUN[0]), ("std", OF_RUN[1])):
        torch.testing.assert_close(teacher.get_buffer(name).flatten(), torch.tensor(numbers))


def test_teacher_of_unknown_provenance_uses_the_statistics_of_the_run(tiny: Tiny, tmp_path: Path) -> None:
    save_model(tmp_path / "gray.safetensors", model(in_chans=1), {})
    config = run_config(tiny, objective__teacher=str(tmp_path / "gray.safetensors"))
    config = replace(config, data=replace(config.data, mean=OF_RUN[0], std=OF_RUN[1]))
    teacher = build_teacher(open_teacher(str(tmp_path / "gray.safetensors")), config)
    assert teacher is not None
    torch.testing.assert_close(teacher.get_buffer("own_mean").flatten(), torch.tensor([0.375]))
    torch.testing.assert_close(teacher.get_buffer("own_std").flatten(), torch.tensor([0.875 / 3]))


def test_no_teacher_is_none(tiny: Tiny) -> None:
    config = run_config(tiny)
    assert open_teacher(None) is None
    assert build_teacher(None, config) is None
    assert with_head(None, config, CLASSES) is None


def test_missing_teacher_is_reported_before_anything_is_written(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="no such file"):
        run_training(tiny(objective__teacher=str(tmp_path / "gone")))
    assert not (tmp_path / "run").exists()


def test_teacher_is_recorded_with_its_absolute_path(
    own_teacher: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_teacher.parent)
    assert run_config(tiny, objective__teacher="run").objective.teacher == str(own_teacher)


# Whole runs.


@pytest.mark.parametrize("kind", ["soft", "token", "feature"])
def test_run_with_a_teacher_resumes_bit_for_bit_and_learns_other_weights(
    own_teacher: Path, tiny: Tiny, kind: str
) -> None:
    keys: dict[str, Any] = {
        "objective__distill": kind,
        "data__mixup_alpha": 0.4,
        "train__checkpoint_every_s": 0,
    }
    keys |= {"model__distill_token": True, "model__pool": "token"} if kind.startswith("token") else {}
    teacher = {"objective__teacher": str(own_teacher)}
    whole = run_training(tiny("whole", **keys, **teacher))
    interrupted = tiny("interrupted", **keys, **teacher)

    def stop(name: str, fields: Any) -> None:
        if name == "step" and fields["step"] >= 5:
            raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="the power is gone"):
        run_training(interrupted, stop)
    resumed = run_training(TrainRequest(resume=interrupted.out))
    untaught = run_training(
        tiny("untaught", **{key: value for key, value in keys.items() if key != "objective__distill"})
    )
    weights = [load_model(folder.model).state_dict() for folder in (whole, resumed, untaught)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not all(torch.equal(tensor, weights[2][name]) for name, tensor in weights[0].items())
    (record,) = kinds(whole, "teacher")
    assert record["fingerprint"] == fingerprint(load_model(own_teacher / "model.safetensors"))
    assert (record["source"], record["distill"]) == (str(own_teacher), kind)


def test_run_resumes_only_with_the_same_teacher(own_teacher: Path, tiny: Tiny, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(own_teacher, tmp_path / "teacher"))
    request = tiny(objective__teacher=str(moved), train__checkpoint_every_s=0)

    def stop(name: str, fields: Any) -> None:
        if name == "step" and fields["step"] >= 5:
            raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="the power is gone"):
        run_training(request, stop)
    was = fingerprint(load_model(moved / "model.safetensors"))
    other = model(img_size=(16, 24))
    save_model(moved / "model.safetensors", other, {"classes": list(CLASSES)})
    with pytest.raises(RunError) as caught:
        run_training(TrainRequest(resume=request.out))
    assert str(caught.value) == (
        f"run={request.out}: its teacher has changed since the run started (fingerprint {fingerprint(other)}, was "
        f"{was}); restore {moved}, or start a new run"
    )
    shutil.copy(own_teacher / "model.safetensors", moved)
    assert run_training(TrainRequest(resume=request.out)).model.exists()
