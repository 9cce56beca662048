"""Runs write familiarity.safetensors next to their model, the same one after a resume, and within a budget."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from vitreous.model.weights import load_model
from vitreous.tensor_file import open_tensor_file
from vitreous.training.fit.familiarity import read_familiarity
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.measure.instruments import Instruments
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training

Tiny = Callable[..., TrainRequest]


def records(folder: RunFolder) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] == "familiarity"]


def test_a_run_with_enough_validation_images_writes_the_file_of_its_weights(tiny: Tiny) -> None:
    folder = run_training(tiny(data__val_ratio=0.5))
    found = read_familiarity(folder.familiarity, load_model(folder.model))
    assert found is not None
    (record,) = records(folder)
    assert record["score"] == found.score
    assert record["split"] == "test"


def test_a_run_with_few_validation_images_writes_none(tiny: Tiny) -> None:
    folder = run_training(tiny())
    assert not folder.familiarity.exists()
    assert records(folder) == []


def test_the_model_is_the_same_with_and_without_the_file(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_training(tiny("with", data__val_ratio=0.5))
    monkeypatch.setattr("vitreous.training.finish.with_labels.fit_familiarity", lambda *_: None)
    other = run_training(tiny("without", data__val_ratio=0.5))
    assert folder.model.read_bytes() == other.model.read_bytes()
    assert not other.familiarity.exists()


@pytest.mark.parametrize("keys", [{"data__in_chans": 1}, {"model__pool": "mean"}])
def test_gray_images_and_other_pools_have_the_file(tiny: Tiny, keys: dict[str, Any]) -> None:
    folder = run_training(tiny(data__val_ratio=0.5, train__epochs=0.5, **keys))
    assert read_familiarity(folder.familiarity, load_model(folder.model)) is not None


def test_the_file_is_for_the_weights_into_which_lora_updates_were_merged(tiny: Tiny) -> None:
    first = run_training(tiny("first", train__epochs=0.5))
    keys = {"train__pretrained": str(first.path), "train__lora_rank": 2, "train__epochs": 0.5}
    folder = run_training(tiny("second", data__val_ratio=0.5, **keys))
    assert read_familiarity(folder.familiarity, load_model(folder.model)) is not None


def test_a_resumed_run_writes_the_same_file(tiny: Tiny) -> None:
    whole = run_training(tiny("whole", data__val_ratio=0.5))

    def crash(kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] >= 4:
            raise RuntimeError("the power is gone")

    request = tiny("halves", data__val_ratio=0.5, train__checkpoint_every_s=0)
    with pytest.raises(RuntimeError, match="the power is gone"):
        run_training(request, crash)
    resumed = run_training(replace(request, data=None, values={}, out=None, resume=request.out))
    assert resumed.familiarity.read_bytes() == whole.familiarity.read_bytes()


@pytest.mark.parametrize(("images_per_s", "is_there"), [(1e6, True), (1.0, False)])
def test_a_budget_limits_the_images_that_are_looked_at(
    tiny: Tiny, quick: Instruments, images_per_s: float, is_there: bool
) -> None:
    instruments = replace(quick, evaluation_images_per_s=lambda config: images_per_s)
    folder = run_training(tiny(data__val_ratio=0.5, train__budget_s=60.0, train__epochs=1.0), instruments=instruments)
    assert folder.familiarity.exists() == is_there


def test_with_a_longer_budget_more_images_are_stored(tiny: Tiny, quick: Instruments) -> None:
    stored = []
    for budget_s in (340.0, 1e6):
        instruments = replace(quick, evaluation_images_per_s=lambda config: 100.0)
        request = tiny(f"{budget_s}", data__val_ratio=0.5, train__budget_s=budget_s, train__epochs=0.5)
        with open_tensor_file(run_training(request, instruments=instruments).familiarity, way_out="") as file:
            stored.append(file.shapes()["features"][0])
    assert 2 <= stored[0] < stored[1]
