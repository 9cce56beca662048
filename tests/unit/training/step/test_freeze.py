from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vitreous.optim.config import OptimConfig
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe import keys
from vitreous.recipe.run_config import TrainConfig
from vitreous.tensors import Images, Labels
from vitreous.training.step.curriculum import Curriculum
from vitreous.training.step.freeze import make_trainable
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, train_step

MakeState = Callable[..., TrainState]
Pair = tuple[Images, Labels]
TINY = {
    "data.source": "nowhere", "data.img_size": (8, 12), "data.in_chans": 3, "data.num_classes": 5,
    "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 3, "model.num_heads": 2,
}  # fmt: skip


def start(make_state: MakeState, settings: StepSettings, **values: object) -> tuple[TrainState, StepSettings]:
    """Return a state with three blocks and matching settings; `values` are keys of `train`."""
    config = keys.assemble("tiny", TINY | {f"train.{key}": value for key, value in values.items()})
    model = make_state(depth=3).model
    make_trainable(model, config.train)
    optim = OptimConfig(weight_decay=0.5)
    state = TrainState(model=model, ema=Ema(model), optimizer=build_optimizer(model, optim), horizon=Horizon(20))
    return state, replace(settings, optim=optim, curriculum=Curriculum(config))


def take(state: TrainState, settings: StepSettings, batch: Pair, num_steps: int) -> None:
    for _ in range(num_steps):
        assert train_step(state, *batch, settings).applied
        state.step += 1


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("values", "trained"),
    [
        ({"freeze": "backbone"}, ("head.",)),
        ({"freeze_blocks": 2}, ("encoder.blocks.2.", "encoder.norm.", "head.")),
        ({"freeze_blocks": 3}, ("encoder.norm.", "head.")),
    ],
)
def test_frozen_weights_stay_the_same_bit_for_bit_and_all_others_change(
    make_state: MakeState, settings: StepSettings, batch: Pair, values: dict[str, object], trained: tuple[str, ...]
) -> None:
    state, settings = start(make_state, settings, **values)
    before = {name: tensor.clone() for name, tensor in state.tensors().items() if not name.startswith("optimizer")}
    take(state, settings, batch, 3)
    expected = {f"{owner}.{name}" for owner in ("model", "ema")
                for name in state.model.state_dict() if name.startswith(trained)}  # fmt: skip
    assert changed(before, state.tensors()) == expected
    in_optimizer = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert in_optimizer == {id(p) for name, p in state.model.named_parameters() if name.startswith(trained)}


def test_frozen_modules_use_no_dropout(make_state: MakeState, settings: StepSettings, batch: Pair) -> None:
    state, settings = start(make_state, settings, freeze_blocks=2)
    take(state, settings, batch, 1)
    modes = [block.training for block in state.model.encoder.blocks]
    assert modes == [False, False, True]
    assert not state.model.tokenizer.training


def test_unfrozen_layers_are_trained_from_then_on(make_state: MakeState, settings: StepSettings, batch: Pair) -> None:
    state, settings = start(make_state, settings, freeze="backbone", freeze_until=0.5)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    average = {name: tensor.clone() for name, tensor in state.ema.model.state_dict().items()}
    take(state, settings, batch, 10)
    assert changed(before, state.model.state_dict()) == {"head.weight", "head.bias"}
    assert changed(average, state.ema.model.state_dict()) == {"head.weight", "head.bias"}
    take(state, settings, batch, 2)
    assert changed(before, state.model.state_dict()) == set(before)
    assert changed(average, state.ema.model.state_dict()) == set(average)
    assert all(block.training for block in state.model.encoder.blocks)


def test_state_resumes_bit_for_bit_across_the_unfreezing(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    values = {"freeze_blocks": 2, "freeze_until": 0.5}
    state, settings = start(make_state, settings, **values)
    take(state, settings, batch, 8)
    kept = {name: tensor.clone() for name, tensor in state.tensors().items()}, state.numbers()
    take(state, settings, batch, 6)
    resumed, _ = start(make_state, settings, **values)
    resumed.load(*kept)
    take(resumed, settings, batch, 6)
    assert changed(state.tensors(), resumed.tensors()) == set()
    assert state.tensors().keys() == resumed.tensors().keys()


def test_lora_trains_only_adapters_and_head(make_state: MakeState, settings: StepSettings, batch: Pair) -> None:
    state, settings = start(make_state, settings, lora_rank=2)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    take(state, settings, batch, 3)
    trained = changed(before, state.model.state_dict())
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in trained} == {"head", "down", "up"}
    assert {name for name in before if ".base." in name} & trained == set()


def test_nothing_is_frozen_by_default(make_state: MakeState) -> None:
    model = make_state().model
    make_trainable(model, TrainConfig())
    assert all(parameter.requires_grad for parameter in model.parameters())
