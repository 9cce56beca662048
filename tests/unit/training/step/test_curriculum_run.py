"""Whole runs with a curriculum: they resume bit for bit, and the final model has one image size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vitreous.model.weights import load_model, read_metadata
from vitreous.training.folder.records import ignore
from vitreous.training.measure.speed import training_pace
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training

Tiny = Callable[..., TrainRequest]
CURRICULUM = {
    "data__img_size": (16, 24), "train__start_img_size": (8, 12), "train__resolution_until": 0.9, "model__depth": 2,
    "model__patch_drop_rate": 0.5, "train__patch_drop_until": 0.6, "train__freeze_blocks": 1,
    "train__freeze_until": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("stop_at", [2, 4, 8])
def test_run_that_crashes_in_any_stretch_ends_with_the_same_weights(tiny: Tiny, tmp_path: Path, stop_at: int) -> None:
    straight = run_training(tiny("straight", **CURRICULUM))

    def cut(kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] >= stop_at:
            raise RuntimeError("power failure")

    request = tiny("cut", **CURRICULUM, train__checkpoint_every_s=0)
    with pytest.raises(RuntimeError, match="power failure"):
        run_training(request, cut)
    resumed = run_training(TrainRequest(resume=request.out))
    expected = load_model(straight.model).state_dict()
    for name, tensor in load_model(resumed.model).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_final_model_has_one_image_size(tiny: Tiny) -> None:
    folder = run_training(tiny(**CURRICULUM))
    model = load_model(folder.model)
    assert model.config.img_size == (16, 24)
    assert not model.config.dynamic_img_size
    with pytest.raises(ValueError, match="the model takes 16x24 px"):
        model(torch.zeros(1, 3, 8, 12))
    assert read_metadata(folder.model)["preprocess"]["img_size"] == [16, 24]


def test_run_with_a_budget_measures_each_stretch(tiny: Tiny) -> None:
    request = tiny(**{**CURRICULUM, "data__img_size": (64, 96), "train__start_img_size": (8, 12)}, data__batch_size=40)
    _, plan = plan_run(request, ignore)
    pace = training_pace(plan.config, seconds=0.03)
    assert [start for start, _, _ in pace.stretches] == pytest.approx([0.0, 0.3, 0.6, 0.9])
    assert pace.stretches[0][2] < pace.stretches[-1][2]


def test_linear_probe_on_features_resumes_bit_for_bit(tiny: Tiny) -> None:
    probe = {"train__freeze": "backbone", "data__flip": False, "data__max_shift": 0.0, "data__max_scale": 0.0,
              "data__max_rotate_deg": 0.0, "data__min_crop_area": 1.0}  # fmt: skip
    straight = run_training(tiny("straight", **probe))

    def cut(kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] >= 5:
            raise RuntimeError("power failure")

    request = tiny("cut", **probe, train__checkpoint_every_s=0)
    with pytest.raises(RuntimeError, match="power failure"):
        run_training(request, cut)
    resumed = run_training(TrainRequest(resume=request.out))
    expected = load_model(straight.model).state_dict()
    for name, tensor in load_model(resumed.model).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
