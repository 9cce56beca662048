"""Every optimizer, in a step and across a checkpoint."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Criterion, Supervised
from vitreous.optim.config import OptimConfig, OptimizerName
from vitreous.optim.schedule_free import ScheduleFree
from vitreous.seeding import derive
from vitreous.tensors import Images, Labels
from vitreous.training.fit.checkpoint import load_checkpoint, save_checkpoint
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, train_step

MakeState = Callable[..., TrainState]
Snapshot = Callable[[TrainState], dict[str, Tensor]]
Pair = tuple[Images, Labels]
NAMES = get_args(OptimizerName)
PLAIN = {"pos_drop_rate": 0.0, "drop_path_rate": 0.0}


def config(name: OptimizerName = "adamw", **changes: float) -> OptimConfig:
    return OptimConfig(name=name, lr=0.01, layer_decay=0.75, **changes)  # type: ignore[arg-type]


def settings_for(optim: OptimConfig) -> StepSettings:
    task = Supervised(CrossEntropy(label_smoothing=0.1))
    return StepSettings(task=task, optim=optim, precision="fp32", seed=3)


def take(state: TrainState, batch: Pair, settings: StepSettings, steps: int) -> None:
    for _ in range(steps):
        assert train_step(state, *batch, settings).applied
        state.step += 1


class NanFrom(Criterion):
    """Cross-entropy that is NaN from call number `call` on."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.calls_left = call

    def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        self.calls_left -= 1
        return F.cross_entropy(logits, targets) * (1.0 if self.calls_left > 0 else math.nan)


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("name", NAMES)
def test_run_resumes_bit_for_bit_with_every_optimizer(
    make_state: MakeState, batch: Pair, snapshot: Snapshot, tmp_path: Path, name: OptimizerName, rho: float
) -> None:
    optim = config(name, sam_rho=rho)
    whole, resumed = make_state(embed_dim=32, optim=optim), make_state(embed_dim=32, optim=optim, seed=1)
    take(whole, batch, settings_for(optim), 3)
    load_checkpoint(save_checkpoint(tmp_path, whole), resumed)
    for state in (whole, resumed):
        take(state, batch, settings_for(optim), 3)
    torch.testing.assert_close(snapshot(resumed), snapshot(whole), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_refused_step_changes_nothing_with_any_optimizer(
    make_state: MakeState, batch: Pair, snapshot: Snapshot, name: OptimizerName
) -> None:
    settings = settings_for(config(name, sam_rho=0.1))
    for call in (1, 2):  # at the weights themselves, and at the uphill weights of SAM
        state = make_state(optim=settings.optim)
        take(state, batch, settings, 2)
        before = snapshot(state)
        result = train_step(state, *batch, replace(settings, task=Supervised(NanFrom(call))))
        assert not result.applied
        assert math.isnan(result.grad_norm)
        torch.testing.assert_close(snapshot(state), before, rtol=0, atol=0)
        assert all(parameter.grad is None for parameter in state.model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_loss_on_one_batch_decreases(make_state: MakeState, batch: Pair, name: OptimizerName) -> None:
    optim = replace(
        config(name), lr=0.1 if name == "lamb" else 0.01, layer_decay=1.0
    )  # LAMB scales its step by the norm of the matrix
    state = make_state(optim=optim, end_step=40, **PLAIN)
    first = train_step(state, *batch, settings_for(optim)).loss
    take(state, batch, settings_for(optim), 30)
    assert train_step(state, *batch, settings_for(optim)).loss < 0.8 * first


def test_layer_decay_scales_the_step_of_each_layer(make_state: MakeState, batch: Pair) -> None:
    optim = config("lion", weight_decay=0.0)
    state = make_state(optim=optim, depth=2, **PLAIN)
    before = {name: parameter.detach().clone() for name, parameter in state.model.named_parameters()}
    lr = train_step(state, *batch, settings_for(optim)).lr
    shares = {"tokenizer.proj.weight": 0.75**3, "encoder.blocks.0.mlp.fc1.weight": 0.75**2, "head.bias": 1.0}
    for name, share in shares.items():  # every step of Lion has the length of the learning rate
        moved = (state.model.get_parameter(name).detach() - before[name]).abs().max()
        torch.testing.assert_close(moved, torch.tensor(lr * share), rtol=1e-3, atol=0)


def test_average_of_schedule_free_replaces_the_ema(make_state: MakeState, batch: Pair) -> None:
    optim = config("schedule_free")
    state = make_state(optim=optim)
    take(state, batch, settings_for(optim), 3)
    assert isinstance(state.optimizer, ScheduleFree)
    for parameter, average in zip(state.model.parameters(), state.ema.model.parameters(), strict=True):
        torch.testing.assert_close(average.detach(), state.optimizer.average(parameter), rtol=0, atol=0)
    assert not torch.equal(state.model.head.weight, state.ema.model.head.weight)  # type: ignore[arg-type]


def test_sam_steps_with_the_gradient_of_the_uphill_weights(make_state: MakeState, batch: Pair) -> None:
    optim = config(sam_rho=0.7, clip_norm=0.0)
    settings, state = settings_for(optim), make_state(optim=config(), pos_drop_rate=0.5)
    model = copy.deepcopy(state.model)
    passes = []
    for _ in range(2):  # Foret et al. 2021, algorithm 1, with the same dropout in both passes
        torch.manual_seed(derive(3, "dropout", 0, 0))
        loss = F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        passes.append((float(loss.detach()), gradients))
        norm = math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter += 0.7 * gradient / norm
    result = train_step(state, *batch, settings)
    assert passes[0][0] != pytest.approx(passes[1][0], rel=1e-2)
    assert (result.loss, result.grad_norm) == pytest.approx((passes[0][0], norm), rel=1e-4)
    for parameter, gradient in zip(state.model.parameters(), passes[1][1], strict=True):
        mean = state.optimizer.state[parameter]["exp_avg"]
        torch.testing.assert_close(mean / 0.1, gradient, rtol=1e-3, atol=1e-5)
