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

PLAIN = StepSettings(task=Supervised(CrossEntropy()), optim=OptimConfig(), precision="fp32", seed=3)
SETTINGS = {
    "plain": PLAIN,
    "unclipped": replace(PLAIN, optim=OptimConfig(clip_norm=0.0)),
    "sharpness-aware": replace(PLAIN, optim=OptimConfig(sam_rho=0.05)),
    "mixed, in micro-batches": replace(PLAIN, mix=Mix(num_classes=5, mixup_alpha=0.8), num_micro_batches=2),
    "bf16": replace(PLAIN, precision="bf16"),
}


@pytest.fixture
def batches(batch: Pair) -> Batches:
    """Return a function that makes a batch, and the list of its calls.

    Batches differ. The first batch of step 2 and the first two of step 5 are infinite.
    """
    calls: list[tuple[int, int]] = []

    def make_batch(step: int, attempt: int) -> Batch:
        calls.append((step, attempt))
        images = batch[0] * (1 + 0.1 * step) + 0.01 * attempt
        if (step, attempt) in {(2, 0), (5, 0), (5, 1)}:
            images = images * math.inf
        return Batch(images, batch[1], torch.arange(6).numpy())

    return make_batch, calls


def run(
    state: TrainState, steps: Steps, snapshot: Snapshot, num: int
) -> tuple[list[StepResult], list[dict[str, Tensor]]]:
    """Take steps until `num` are applied; return the results and the state after each step."""
    results, snapshots = [], []
    while state.step < num:
        result = steps.take(state).result
        state.step, state.attempt = (state.step + 1, 0) if result.applied else (state.step, state.attempt + 1)
        results.append(result)
        snapshots.append(snapshot(state))
    return results, snapshots


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_running_ahead_gives_the_same_steps_as_waiting_bit_for_bit(
    make_state: MakeState,
    batches: Batches,
    snapshot: Snapshot,
    settings: StepSettings,
) -> None:
    runs = [
        run(make_state(optim=settings.optim), Steps(settings, batches[0], runs_ahead=ahead), snapshot, 8)
        for ahead in (False, True)
    ]
    (results, snapshots), (results_ahead, snapshots_ahead) = runs
    assert [result.applied for result in results] == [True, True, False, True, True, True, False, False, *3 * [True]]
    assert [repr(result) for result in results_ahead] == [repr(result) for result in results]  # NaN does not equal NaN
    torch.testing.assert_close(snapshots_ahead, snapshots, rtol=0, atol=0)
    for refused in (2, 6, 7):
        torch.testing.assert_close(snapshots[refused], snapshots[refused - 1], rtol=0, atol=0)


def test_next_batch_is_requested_before_a_result_is_read_and_none_after_the_last_step(
    make_state: MakeState,
    settings: StepSettings,
    snapshot: Snapshot,
    batches: Batches,
) -> None:
    make_batch, calls = batches
    run(make_state(end_step=4), Steps(settings, make_batch, runs_ahead=True), snapshot, 4)
    assert calls == [(0, 0), (1, 0), (2, 0), (3, 0), (2, 1), (3, 0)]


@pytest.mark.parametrize("change", ["step", "attempt", "horizon"])
def test_queued_gradient_is_discarded_if_step_attempt_or_horizon_change(
    make_state: MakeState,
    settings: StepSettings,
    snapshot: Snapshot,
    batches: Batches,
    change: str,
) -> None:
    outcomes, (make_batch, calls) = [], batches
    for ahead in (False, True):
        calls.clear()
        state, steps = make_state(), Steps(settings, make_batch, runs_ahead=ahead)
        run(state, steps, snapshot, 1)
        if change == "horizon":
            state.horizon = state.horizon.revised(state.step, steps_left=5)
        else:
            setattr(state, change, 0 if change == "step" else 1)
        outcomes.append((steps.take(state).result, snapshot(state)))
    assert calls.count((1, 0)) == 1 + (change == "step")  # a batch that is already there is not requested again
    assert outcomes[1][0] == outcomes[0][0]
    torch.testing.assert_close(outcomes[1][1], outcomes[0][1], rtol=0, atol=0)


def test_cpu_does_not_run_ahead(make_state: MakeState) -> None:
    assert not can_run_ahead(make_state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_host_waits_for_the_gpu_only_to_read_a_result(  # pragma: no cover - needs a GPU
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
