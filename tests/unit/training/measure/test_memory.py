from typing import Any, get_args

import pytest
import torch

from vitreous.model.build import build_model
from vitreous.model.cost.count import count_parameters
from vitreous.optim.config import OptimizerName
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.measure import memory as room
from vitreous.training.measure.memory import OPTIMIZER_TENSORS, memory_share

SMALL = {
    "data.source": "nowhere", "data.img_size": (24, 24), "data.in_chans": 3, "data.num_classes": 5,
    "data.batch_size": 64, "model.patch_size": 4, "model.embed_dim": 64, "model.depth": 4, "model.num_heads": 4,
    "train.device": "cpu", "train.precision": "fp32",
}  # fmt: skip
MEMORY_BYTES = 2**30


def config(**changes: Any) -> RunConfig:
    return keys.assemble("small", SMALL | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "machine_memory_bytes", lambda: MEMORY_BYTES)


def test_without_images_it_is_weights_gradients_average_and_moments() -> None:
    one, two = (memory_share(config(data__batch_size=size)) for size in (1, 2))
    weights = 5 * 4 * count_parameters(config().model) / MEMORY_BYTES
    assert 2 * one - two == pytest.approx(weights, rel=1e-6)


def test_a_batch_in_parts_takes_what_one_part_takes() -> None:
    assert memory_share(config(train__micro_batches=4)) == pytest.approx(memory_share(config(data__batch_size=16)))
    assert memory_share(config(train__micro_batches=64)) == pytest.approx(memory_share(config(data__batch_size=1)))


def test_checkpointing_takes_less_and_bf16_too() -> None:
    usual = memory_share(config())
    assert memory_share(config(train__grad_checkpointing=True)) < 0.7 * usual
    assert memory_share(config(train__precision="bf16")) < 0.8 * usual


def test_attention_that_is_written_out_takes_more_than_the_fused_one() -> None:
    assert memory_share(config(train__attention_kernel="explicit")) > memory_share(
        config(train__attention_kernel="sdpa")
    )


def test_patches_that_are_dropped_for_a_while_count_and_a_frozen_backbone_keeps_little() -> None:
    usual = memory_share(config())
    assert memory_share(config(model__patch_drop_rate=0.5)) < 0.7 * usual
    assert memory_share(config(model__patch_drop_rate=0.5, train__patch_drop_until=0.8)) == usual
    assert memory_share(config(train__freeze="backbone")) < 0.7 * usual
    assert memory_share(config(train__freeze="backbone", train__freeze_until=0.5)) == usual


def test_processes_on_one_machine_share_batch_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = memory_share(config(data__batch_size=32))
    monkeypatch.setattr("vitreous.processes.count", lambda: 2)
    monkeypatch.setattr("vitreous.processes.local_count", lambda: 2)
    assert memory_share(config()) == pytest.approx(2 * alone)


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_optimiser_keeps_about_as_many_numbers_as_said(name: str) -> None:
    asked = config(optim__name=name)
    model = build_model(asked.model)
    optimizer = build_optimizer(model, asked.optim)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = {id(v): v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)}
    kept = sum(tensor.numel() for tensor in tensors.values()) / count_parameters(asked.model)
    assert kept == pytest.approx(OPTIMIZER_TENSORS[name], abs=0.25)
