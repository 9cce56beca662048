import pytest
import torch
from torch import nn

from vitreous.model.build import build_model
from vitreous.model.config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.optim.param_groups import split_by_decay


def vit(**changes: object) -> VisionTransformer:
    values: dict[str, object] = {
        "img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 20, "depth": 2,
        "num_heads": 5, "pool": "token",
    }  # fmt: skip
    return build_model(ModelConfig(**{**values, **changes}))  # type: ignore[arg-type]


def names_of(model: nn.Module, group: list[nn.Parameter]) -> list[str]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [known[id(parameter)] for parameter in group]


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
def test_every_parameter_of_a_vit_is_in_exactly_one_group(pool: str, position: str) -> None:
    model = vit(pool=pool, position=position)
    decayed, others = split_by_decay(model)
    assert sorted(names_of(model, decayed + others)) == sorted(name for name, _ in model.named_parameters())


def test_exactly_the_matrices_that_multiply_features_decay() -> None:
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


def test_frozen_parameters_are_in_neither_group() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 2), nn.LayerNorm(5), nn.Linear(5, 7))
    model[2].requires_grad_(False)
    decayed, others = split_by_decay(model)
    assert names_of(model, decayed) == ["0.weight"]
    assert names_of(model, others) == ["0.bias", "1.weight", "1.bias"]


def test_a_weight_that_two_layers_share_is_listed_once() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    assert names_of(model, split_by_decay(model)[0]) == ["0.weight"]
    assert torch.equal(model[0].weight, model[1].weight)
