"""Models of runs that are not finished: the first one, the best one, and what an interrupted run leaves."""

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import vitreous as vt
from vitreous.errors import NotARunError, PreliminaryWarning
from vitreous.model.weights import load_model, read_metadata, save_model
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.access import create_run_folder
from vitreous.training.folder.records import Recorder, ignore, read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared, load_data
from vitreous.training.machine.signals import Interrupted
from vitreous.training.measure.instruments import Instruments
from vitreous.training.preliminary import candidates, keep_best
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training

Tiny = Callable[..., TrainRequest]


@pytest.fixture
def prepared(tiny: Tiny, tmp_path: Path) -> Prepared:
    survey, plan = plan_run(tiny(), ignore)
    return load_data(plan.config, survey, Recorder(tmp_path / "records.jsonl"))


@pytest.fixture
def pretrained(tiny: Tiny) -> Path:
    """Weights that were trained on other classes, so that the head of a run is new."""
    weights = load_model(run_training(tiny("other", train__epochs=4)).path)
    weights.reset_classifier(7)
    file = tiny("x").out.parent / "other.safetensors"
    save_model(file, weights, {})
    return file


def stop_at(kind: str, **wanted: Any) -> Callable[[str, Any], None]:
    def listen(event: str, fields: Any) -> None:
        if event == kind and all(fields[name] == value for name, value in wanted.items()):
            if kind != "step":  # outside the loop, a process in the background may ignore the signal
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)

    return listen


def record(folder: Path, kind: str) -> dict[str, Any]:
    return next(found for found in read_records(RunFolder(folder).records) if found["kind"] == kind)


def test_the_model_with_the_lowest_loss_is_kept(prepared: Prepared, tiny: Tiny, tmp_path: Path) -> None:
    from vitreous.training.assemble import RunContext, make_loader, new_state
    from vitreous.training.machine.distributed import SINGLE

    folder = create_run_folder(tmp_path / "run", "fruit")
    recorder = Recorder(folder.records)
    context = RunContext(folder, recorder, SINGLE, Instruments(), started_s=0.0)
    state, *_ = new_state(prepared, make_loader(prepared, SINGLE), context)
    state.horizon = replace(state.horizon, end_step=10)
    assert (state.best_loss, candidates(state, folder, 1.0, stops_early=True)) == (math.inf, {})
    for step, (trained, average) in enumerate([(0.9, 0.8), (0.5, 0.7), (0.6, 0.65)], start=1):
        state.step = step
        with torch.no_grad():
            state.model.head.bias.fill_(step)
            state.ema.model.head.bias.fill_(-step)
        scores = {"trained": Score(20, 7, trained), "average": Score(20, 8, average)}
        keep_best(state, scores, prepared, folder)
    assert (state.best_loss, state.best_progress) == (0.5, 0.2)
    assert read_metadata(folder.best)["weights"] == "trained"
    best = candidates(state, folder, 1.0, stops_early=True)["best"]
    assert best.head.bias.tolist() == [2.0] * 3
    assert candidates(state, folder, 1.0, stops_early=False) == {}


def test_run_from_pretrained_weights_has_a_model_before_its_first_step(tiny: Tiny, pretrained: Path) -> None:
    request = tiny(train__pretrained=str(pretrained), data__val_ratio=0.4)
    with pytest.raises(Interrupted, match=r"the best model so far \(validation accuracy \d+\.\d%\) can be used"):
        run_training(request, stop_at("fit"))
    found = record(request.out, "first_model")
    with pytest.warns(
        PreliminaryWarning, match="its run is not finished; this is the best model so far, after 0 steps"
    ):
        predictions = vt.load_run(request.out).predict(str(request.data))
    assert len(predictions) == 61
    assert vt.load_run(request.out).metrics["val"] == found["val"]
    assert found["cross_validated"]["accuracy"] > 0.5
    assert 0 <= found["neighbors_accuracy"] <= 1
    finished = run_training(TrainRequest(resume=request.out))
    assert finished.find_preliminary() is None
    assert not read_metadata(finished.model).get("is_preliminary")


def test_first_model_is_the_pretrained_one_with_another_head(tiny: Tiny, pretrained: Path) -> None:
    request = tiny(train__pretrained=str(pretrained))
    with pytest.raises(Interrupted):
        run_training(request, stop_at("fit"))
    first, source = load_model(RunFolder(request.out).first).state_dict(), load_model(pretrained).state_dict()
    for name, tensor in first.items():
        if not name.startswith("head."):
            torch.testing.assert_close(tensor, source[name], rtol=0, atol=0)


@pytest.mark.parametrize(("lr", "chosen"), [(20.0, "first"), (3e-3, "other")])
def test_training_replaces_the_first_model_only_if_it_is_better(
    tiny: Tiny, pretrained: Path, lr: float, chosen: str
) -> None:
    options = {"optim__clip_norm": 0.0, "data__val_ratio": 0.4, "train__epochs": 4}
    folder = run_training(tiny(train__pretrained=str(pretrained), optim__lr=lr, **options))
    metadata, first = read_metadata(folder.model), record(folder.path, "first_model")["val"]
    assert (metadata["weights"] == "first") == (chosen == "first")
    assert metadata["metrics"]["val"]["loss"] <= first["loss"] * (1 + 1e-6) or metadata["temperature"] != 1


def test_run_that_is_stopped_before_its_first_step_says_that_there_is_no_model(tiny: Tiny) -> None:
    request = tiny()

    def stop(kind: str, fields: Any) -> None:
        if kind == "data":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        run_training(request, stop)
    assert str(caught.value) == (
        f"{request.out}: stopped before the first step; there is no model yet; continue with "
        f"`vitreous train --resume {request.out}`"
    )
    with pytest.raises(NotARunError, match="is not finished; continue it with"):
        vt.load_run(request.out)
    assert run_training(TrainRequest(resume=request.out)).model.is_file()


def test_run_from_scratch_leaves_the_best_model_of_its_evaluations(tiny: Tiny) -> None:
    request = tiny(train__epochs=6)
    with pytest.raises(Interrupted, match="the best model so far"):
        run_training(request, stop_at("step", step=20))
    losses = [found["loss"] for found in read_records(RunFolder(request.out).records) if found["kind"] == "evaluation"]
    assert read_metadata(RunFolder(request.out).best)["metrics"]["val"]["loss"] == min(losses)


def test_first_steps_are_left_out_if_the_budget_is_too_short_for_one(
    tiny: Tiny, pretrained: Path, quick: Instruments
) -> None:
    from vitreous.recipe.pace import Pace

    slow = replace(quick, training_pace=lambda config, teacher: Pace(((0.0, 1.0, 60.0),)))
    request = tiny(train__pretrained=str(pretrained), train__budget_s=30.0, data__img_size=(8, 12))
    folder = run_training(request, instruments=slow)
    metadata = read_metadata(folder.model)
    assert metadata["steps"] == 0
    assert metadata["metrics"]["val"]["accuracy"] == record(folder.path, "first_model")["val"]["accuracy"]
