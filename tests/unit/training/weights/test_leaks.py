"""Weights that were trained on images that a run holds out: the plan says so."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pictures import write_pictures

from vitreous.training.folder.records import ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training

Tiny = Callable[..., TrainRequest]


@pytest.fixture(scope="module")
def first(images_folder: Path, tiny_keys: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run; do not change it."""
    out = tmp_path_factory.mktemp("leaks") / "first"
    return run_training(TrainRequest(data=str(images_folder), values={**tiny_keys, "train.epochs": 0.2}, out=out))


@pytest.mark.parametrize("key", ["train__pretrained", "objective__teacher"])
def test_test_images_that_the_weights_were_trained_on_are_counted(tiny: Tiny, first: RunFolder, key: str) -> None:
    surveyed, plan = plan_run(tiny(data__split_seed=1, **{key: str(first.path)}), ignore)
    before, _ = plan_run(tiny(), ignore)
    num = len(set(before.indices["train"].tolist()) & set(surveyed.indices["test"].tolist()))
    assert num > 0
    assert plan.notes[0] == (
        f"{key.replace('__', '.')}={first.path}: was trained on {num} of the {surveyed.facts.num_test} test images, so "
        "their accuracy is optimistic; use weights of a run with the same test images"
    )


def test_weights_of_a_run_with_the_same_test_images_are_fine(tiny: Tiny, first: RunFolder) -> None:
    _, plan = plan_run(tiny(train__pretrained=str(first.path)), ignore)
    assert not any("is optimistic; use weights of" in note for note in plan.notes)


def test_more_photos_of_more_classes_keep_the_test_images(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    options = {"data__split_seed": 5, "data__test_ratio": 0.3, "train__epochs": 0.2}
    old = run_training(tiny("old", data=own_images, **options))
    before = set(read_held_out_names(old))
    for name in ("melon", "lime"):
        write_pictures(tmp_path / "more", {name: ((90, 200, 40), 12)}, seed=3, name=f"{name}{{:02d}}.png", noise=40)
        shutil.copytree(tmp_path / "more" / name, own_images / name, dirs_exist_ok=True)
    surveyed, plan = plan_run(tiny("new", data=own_images, train__pretrained=str(old.path)), ignore)
    held_out = {Path(surveyed.source.describe(int(index))).name for index in surveyed.indices["test"]}
    assert before <= held_out
    reasons = {choice.key: choice.reason for choice in plan.choices}
    assert reasons["data.split_seed"] == f"as in {old.path}, so that its test images stay test images"
    assert plan.config.data.test_ratio == 0.3
    assert not any("is optimistic" in note for note in plan.notes)
    chosen, _ = plan_run(tiny("other", data=own_images, train__pretrained=str(old.path), data__test_ratio=0.2), ignore)
    assert chosen.facts.test_ratio == 0.2


def read_held_out_names(run: RunFolder) -> list[str]:
    with run.predictions.open(newline="") as file:
        return [Path(row["path"]).name for row in csv.DictReader(file)]
