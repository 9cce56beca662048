from collections.abc import Iterable

import pytest
import torch
from torch import nn

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.optim.param_groups import hidden_matrices, layer_ratio, param_groups


def vit(**changes: object) -> VisionTransformer:
    values: dict[str, object] = {
        "img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 20, "depth": 2,
        "num_heads": 5, "pool": "token",
    }  # fmt: skip
    return build_model(ModelConfig(**{**values, **changes}))  # type: ignore[arg-type]


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters with weight decay and those without."""
    found: dict[float, list[nn.Parameter]] = {0.4: [], 0.0: []}
    for group in param_groups(model, weight_decay=0.4):
        found[group["weight_decay"]] += group["params"]
    return found[0.4], found[0.0]


def names_of(model: nn.Module, group: Iterable[nn.Parameter]) -> list[str]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [known[id(parameter)] for parameter in group]


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
def test_every_parameter_of_a_vit_is_in_exactly_one_group(pool: str, position: str) -> None:
    model = vit(pool=pool, position=position)
    decayed, others = split_by_decay(model)
    assert sorted(names_of(model, decayed + others)) == sorted(name for name, _ in model.named_parameters())


def test_exactly_the_matrices_that_multiply_features_have_weight_decay() -> None:
    model = vit()
    decayed, others = split_by_decay(model)
    layers = [
        f"encoder.blocks.{i}.{part}" for i in range(2) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ]
    assert names_of(model, decayed) == [f"{name}.weight" for name in ("tokenizer.proj", *layers, "head")]
    assert all(parameter.ndim >= 2 for parameter in decayed)
    offsets = {"position.grid", "prefix.class_token", "prefix.class_position", "encoder.norm.weight", "head.bias"}
    assert offsets <= set(names_of(model, others))
    assert not [name for name in names_of(model, others) if name.endswith(("fc1.weight", "qkv.weight"))]


def test_groups_keep_the_order_of_the_model() -> None:
    model = vit()
    order = [name for name, _ in model.named_parameters()]
    for group in split_by_decay(model):
        places = [order.index(name) for name in names_of(model, group)]
        assert places == sorted(places)


def test_frozen_parameters_are_in_no_group() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 2), nn.LayerNorm(5), nn.Linear(5, 7))
    model[2].requires_grad_(False)
    decayed, others = split_by_decay(model)
    assert names_of(model, decayed) == ["0.weight"]
    assert names_of(model, others) == ["0.bias", "1.weight", "1.bias"]


def test_weight_shared_by_two_layers_is_listed_once() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    assert names_of(model, split_by_decay(model)[0]) == ["0.weight"]
    assert torch.equal(model[0].weight, model[1].weight)


# Layer-wise learning rate decay.

PARTS = {
    "tokenizer.proj.weight": 0.7**4, "tokenizer.proj.bias": 0.7**4,
    "position.grid": 0.7**4,
    "prefix.class_token": 0.7**4, "prefix.class_position": 0.7**4, "prefix.registers": 0.7**4,
    **{f"encoder.blocks.{i}.{part}.{kind}": 0.7 ** (3 - i)
       for i in range(3) for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
       for kind in ("weight", "bias")},
    "encoder.norm.weight": 1.0, "encoder.norm.bias": 1.0,
    "head.weight": 1.0, "head.bias": 1.0,
}  # fmt: skip
"""Expected fractions of the learning rate for three blocks and a layer decay of 0.7."""


def test_each_layer_has_the_expected_fraction_of_the_learning_rate() -> None:
    model = vit(depth=3, num_registers=2)
    found = {}
    for group in param_groups(model, weight_decay=0.4, layer_decay=0.7):
        for name in names_of(model, group["params"]):
            found[name] = group["lr_ratio"]
            assert group["weight_decay"] == (0.4 if name in names_of(model, split_by_decay(model)[0]) else 0.0)
    assert found == pytest.approx(PARTS)


def test_there_is_one_group_for_each_rate_and_decay() -> None:
    groups = param_groups(vit(depth=3), weight_decay=0.4, layer_decay=0.7)
    keys = [(group["weight_decay"], group["lr_ratio"]) for group in groups]
    assert len(set(keys)) == len(keys) == 10
    assert len(param_groups(vit(depth=3), weight_decay=0.4)) == 2


@pytest.mark.parametrize(
    ("name", "number"),
    [("relation.table", 0), ("patch_norm.weight", 0), ("encoder.norm_pre.bias", 0), ("encoder.blocks.0.ls1.gamma", 1),
     ("encoder.blocks.11.norm1.weight", 12), ("pool.probe", 13), ("fc_norm.weight", 13), ("head.label.weight", 13),
     ("something.else", 13)],
)  # fmt: skip
def test_layers_are_recognized_by_name(name: str, number: int) -> None:
    assert layer_ratio(name, depth=12, layer_decay=0.5) == 0.5 ** (13 - number)


def test_without_layer_decay_every_layer_has_the_full_rate() -> None:
    assert layer_ratio("tokenizer.proj.weight", depth=12, layer_decay=1.0) == 1.0


def test_hidden_matrices_are_those_of_the_blocks() -> None:
    model = vit(attn_gate=True, layer_scale=0.1)
    model.get_submodule("encoder.blocks.1.mlp.fc2").requires_grad_(False)
    parts = ("attn.qkv", "attn.proj", "attn.gate", "mlp.fc1", "mlp.fc2")
    expected = {f"encoder.blocks.{i}.{part}.weight" for i in range(2) for part in parts}
    found = hidden_matrices(model)
    assert set(names_of(model, found)) == expected - {"encoder.blocks.1.mlp.fc2.weight"}
    assert set(names_of(model, [matrix for matrix, num in found.items() if num == 3])) == {
        f"encoder.blocks.{i}.attn.qkv.weight" for i in range(2)
    }
