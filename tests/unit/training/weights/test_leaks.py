"""Weights that were trained on images that a run holds out: the plan says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
