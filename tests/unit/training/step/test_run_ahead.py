import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vitreous.data.augmentation.mix import Mix
from vitreous.data.loader import Batch
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Supervised
from vitreous.optim.config import OptimConfig
from vitreous.tensors import Images, Labels
from vitreous.training.step.run_ahead import Steps, can_run_ahead
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepResult, StepSettings

MakeState = Callable[..., TrainState]
Snapshot = Callable[[TrainState], dict[str, Tensor]]
Pair = tuple[Images, Labels]
Batches = tuple[Callable[[int, int], Batch], list[tuple[int, int]]]

SETTINGS = {
    "plain": StepSettings(Supervised(CrossEntropy()), OptimConfig(), "fp32", seed=3),
    "unclipped": StepSettings(Supervised(CrossEntropy()), OptimConfig(clip_norm=0.0), "fp32", seed=3),
    "sharpness-aware": StepSettings(Supervised(CrossEntropy()), OptimConfig(sam_rho=0.05), "fp32", seed=3),
    "mixed, in parts": StepSettings(
        Supervised(CrossEntropy()), OptimConfig(), "fp32", 3, Mix(num_classes=5, mixup_alpha=0.8), num_parts=2
    ),
    "bf16": StepSettings(Supervised(CrossEntropy()), OptimConfig(), "bf16", seed=3),
}


@pytest.fixture
def batches(batch: Pair) -> Batches:
    """Batches that differ, of which some are infinite: of step 2 the first, of step 5 the first two; what was asked."""
    asked: list[tuple[int, int]] = []

    def of(step: int, attempt: int) -> Batch:
        asked.append((step, attempt))
        images = batch[0] * (1 + 0.1 * step) + 0.01 * attempt
        if (step, attempt) in {(2, 0), (5, 0), (5, 1)}:
            images = images * math.inf
        return Batch(images, batch[1], torch.arange(6).numpy())

    return of, asked


def run(
    state: TrainState, steps: Steps, snapshot: Snapshot, num: int
) -> tuple[list[StepResult], list[dict[str, Tensor]]]:
    """Take steps until `num` are applied; results, and the state after each."""
    results, snapshots = [], []
    while state.step < num:
        result = steps.take(state).result
        state.step, state.attempt = (state.step + 1, 0) if result.applied else (state.step, state.attempt + 1)
        results.append(result)
        snapshots.append(snapshot(state))
    return results, snapshots


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_steps_that_run_ahead_are_those_that_wait_bit_by_bit(
    make_state: MakeState,
    batches: Batches,
    snapshot: Snapshot,
    settings: StepSettings,
) -> None:
    found = [
        run(make_state(optim=settings.optim), Steps(settings, batches[0], runs_ahead=ahead), snapshot, 8)
        for ahead in (False, True)
    ]
    (results, snapshots), (results_ahead, snapshots_ahead) = found
    assert [result.applied for result in results] == [True, True, False, True, True, True, False, False, *3 * [True]]
    assert [repr(result) for result in results_ahead] == [repr(result) for result in results]  # NaN is not NaN
    torch.testing.assert_close(snapshots_ahead, snapshots, rtol=0, atol=0)
    for refused in (2, 6, 7):
        torch.testing.assert_close(snapshots[refused], snapshots[refused - 1], rtol=0, atol=0)


def test_next_batch_is_asked_for_before_a_step_is_known_and_none_beyond_the_last(
    make_state: MakeState,
    settings: StepSettings,
    snapshot: Snapshot,
    batches: Batches,
) -> None:
    of, asked = batches
    run(make_state(end_step=4), Steps(settings, of, runs_ahead=True), snapshot, 4)
    assert asked == [(0, 0), (1, 0), (2, 0), (3, 0), (2, 1), (3, 0)]


@pytest.mark.parametrize("change", ["step", "attempt", "horizon"])
def test_gradient_under_way_is_dropped_where_the_run_goes_elsewhere(
    make_state: MakeState,
    settings: StepSettings,
    snapshot: Snapshot,
    batches: Batches,
    change: str,
) -> None:
    found, (_, asked) = [], batches
    for ahead in (False, True):
        asked.clear()
        state, steps = make_state(), Steps(settings, batches[0], runs_ahead=ahead)
        run(state, steps, snapshot, 1)
        if change == "horizon":
            state.horizon = state.horizon.revised(state.step, steps_left=5)
        else:
            setattr(state, change, 0 if change == "step" else 1)
        found.append((steps.take(state).result, snapshot(state)))
    assert asked.count((1, 0)) == 1 + (change == "step")  # a batch that is there is not asked for again
    assert found[1][0] == found[0][0]
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0, atol=0)


def test_only_a_device_of_its_own_runs_ahead(make_state: MakeState) -> None:
    assert not can_run_ahead(make_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_is_never_waited_for_but_to_read(  # pragma: no cover - needs a GPU
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    state = make_state()
    state.model.cuda()
    state.ema.model.cuda()
    state.ema.follow(state.model)
    state.optimizer = type(state.optimizer)(state.optimizer.param_groups, fused=True)
    assert can_run_ahead(state)
    on_gpu = Batch(batch[0].cuda(), batch[1].cuda(), torch.arange(6).numpy())
    mixed = replace(settings, mix=Mix(num_classes=5, mixup_alpha=0.8))
    steps = Steps(mixed, lambda step, attempt: on_gpu, runs_ahead=True)
    steps.take(state)
    torch.cuda.set_sync_debug_mode("error")
    try:
        state.step += 1
        assert steps.take(state).result.applied
    finally:
        torch.cuda.set_sync_debug_mode("default")
