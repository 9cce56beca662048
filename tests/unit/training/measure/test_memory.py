from typing import Any, get_args

import pytest
import torch

from vitreous.data.pixels.store import machine_memory_bytes
from vitreous.model.build import build_model
from vitreous.model.cost.count import count_parameters
from vitreous.optim.config import OptimizerName
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.measure.memory import OPTIMIZER_TENSORS, memory_share

SMALL = {
    "data.source": "nowhere", "data.img_size": (24, 24), "data.in_chans": 3, "data.num_classes": 5,
    "data.batch_size": 64, "model.patch_size": 4, "model.embed_dim": 64, "model.depth": 4, "model.num_heads": 4,
    "train.device": "cpu", "train.precision": "fp32",
}  # fmt: skip
MEMORY_BYTES = 2**30


def config(**changes: Any) -> RunConfig:
    return keys.assemble("small", SMALL | {key.replace("__", "."): value for key, value in changes.items()})


def share(**changes: Any) -> float:
    """The share of `MEMORY_BYTES` that a training step needs."""
    return memory_share(config(**changes)) * machine_memory_bytes() / MEMORY_BYTES


def test_share_without_images_is_that_of_weights_gradients_average_and_moments() -> None:
    one, two = (share(data__batch_size=size) for size in (1, 2))
    weights = 5 * 4 * count_parameters(config().model) / MEMORY_BYTES
    assert 2 * one - two == pytest.approx(weights, rel=1e-6)


def test_batch_in_micro_batches_needs_the_memory_of_one_micro_batch() -> None:
    assert share(train__micro_batches=4) == pytest.approx(share(data__batch_size=16))
    assert share(train__micro_batches=64) == pytest.approx(share(data__batch_size=1))


def test_gradient_checkpointing_and_bf16_need_less() -> None:
    usual = share()
    assert share(train__grad_checkpointing=True) < 0.7 * usual
    assert share(train__precision="bf16") < 0.8 * usual


def test_explicit_attention_needs_more_than_the_fused_kernel() -> None:
    assert share(train__attention_kernel="explicit") > share(train__attention_kernel="sdpa")


def test_patches_dropped_only_at_first_count_fully_and_a_frozen_backbone_needs_little() -> None:
    usual = share()
    assert share(model__patch_drop_rate=0.5) < 0.7 * usual
    assert share(model__patch_drop_rate=0.5, train__patch_drop_until=0.8) == usual
    assert share(train__freeze="backbone") < 0.7 * usual
    assert share(train__freeze="backbone", train__freeze_until=0.5) == usual


def test_processes_on_one_machine_share_batch_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    single = memory_share(config(data__batch_size=32))
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert memory_share(config()) == pytest.approx(2 * single)


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_optimizers_store_the_stated_number_of_values_per_weight(name: str) -> None:
    asked = config(optim__name=name)
    model = build_model(asked.model)
    optimizer = build_optimizer(model, asked.optim)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = {id(v): v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)}
    kept = sum(tensor.numel() for tensor in tensors.values()) / count_parameters(asked.model)
    assert kept == pytest.approx(OPTIMIZER_TENSORS[name], abs=0.25)
