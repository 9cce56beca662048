from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vitreous.model.weights import load_model, read_metadata
from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.loop import patience_is_due, patience_is_over
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.training.step.state import TrainState

MakeState = Callable[..., TrainState]


def score(loss: float) -> Score:
    return Score(num_images=20, num_correct=7, loss=loss)


@pytest.mark.parametrize(("patience", "num"), [(0.5, 12), (1.0, 12), (0.05, 40)])
def test_evaluations_are_at_even_progress_for_any_number_of_steps(patience: float, num: int) -> None:
    for steps in (97, 120):
        due = [patience_is_due(step / steps, (step + 1) / steps, patience) for step in range(steps)]
        assert sum(due) == num
        assert due[-1]


@pytest.mark.parametrize("progress", [0.3, 0.5])
def test_run_is_over_once_the_patience_has_passed(make_state: MakeState, progress: float) -> None:
    state = make_state(end_step=10)
    state.step, state.best_progress = round(10 * progress), 0.2
    assert patience_is_over(state, patience=0.2) == (progress > 0.4)
    assert patience_is_over(state, patience=0.05)


@pytest.fixture
def diverging(tiny: Callable[..., TrainRequest]) -> Callable[..., TrainRequest]:
    """Make a run whose validation loss soon gets worse, because its learning rate is far too high."""

    def make(out: str = "run", **changes: Any) -> TrainRequest:
        values = {"train__epochs": 8.0, "train__patience_ratio": 0.25, "optim__lr": 0.5, "optim__clip_norm": 0.0}
        return tiny(out, **{**values, **changes})

    return make


def outcome(folder: RunFolder) -> tuple[int, dict[str, torch.Tensor]]:
    stop = next(record for record in read_records(folder.records) if record["kind"] == "stopped_early")
    return stop["step"], load_model(folder.model).state_dict()


def test_run_stops_early_with_its_best_weights_and_so_does_a_resumed_run(
    diverging: Callable[..., TrainRequest], tmp_path: Path
) -> None:
    folder = run_training(diverging())
    records = read_records(folder.records)
    step, weights = outcome(folder)
    assert step < 48
    assert read_metadata(folder.model)["steps"] == step
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    best = min(evaluations, key=lambda record: record["calibrated_loss"])
    stop = next(record for record in records if record["kind"] == "stopped_early")
    assert stop["best_loss"] == best["calibrated_loss"]
    assert read_metadata(folder.model)["metrics"]["val"]["loss"] == pytest.approx(best["loss"], rel=1e-5)

    def cut(kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] >= step - 3:
            raise RuntimeError("power failure")

    request = diverging("cut", train__checkpoint_every_s=0)
    with pytest.raises(RuntimeError, match="power failure"):
        run_training(request, cut)
    again, resumed = outcome(run_training(TrainRequest(resume=request.out)))
    assert again == step
    for name, tensor in resumed.items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)


def test_run_that_keeps_improving_is_not_stopped(tiny: Callable[..., TrainRequest]) -> None:
    folder = run_training(tiny(train__patience_ratio=1.0))
    assert not [record for record in read_records(folder.records) if record["kind"] == "stopped_early"]
    assert read_metadata(folder.model)["steps"] == 12
