"""What timm's own tests ask of a model (tests/test_models.py of timm 1.0.31), for one small model of each kind."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from vitreous.model.config.presets import config_for
from vitreous.model.timm_registry import PREFIX, register

timm = pytest.importorskip("timm", reason="timm is not installed")

SIZES = {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes", "layer_scale"}
NAMES = register()


def kinds() -> list[str]:
    """Return one name of each architecture; the others differ from it only in size."""
    found: dict[str, str] = {}
    for name in NAMES:
        fields = dataclasses.asdict(config_for(name.removeprefix(PREFIX)))
        found.setdefault(repr({key: value for key, value in fields.items() if key not in SIZES}), name)
    return list(found.values())


def small(name: str, **arguments: Any) -> torch.nn.Module:
    """Build a narrow model with 3 blocks for images of 2x3 patches."""
    side = config_for(name.removeprefix(PREFIX)).patch_size
    size = {"embed_dim": 48, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0, "img_size": (2 * side, 3 * side)}
    return timm.create_model(name, **size, **arguments)


def images_for(name: str, batch_size: int) -> Tensor:
    side = config_for(name.removeprefix(PREFIX)).patch_size
    return torch.randn(batch_size, 3, 2 * side, 3 * side, generator=torch.Generator().manual_seed(0))


def test_timm_knows_the_input_of_every_model() -> None:
    for name in NAMES:
        config = config_for(name.removeprefix(PREFIX))
        known = timm.get_pretrained_cfg(name)
        assert (known.architecture, known.has_weights) == (name, None)
        assert known.input_size == (3, *config.img_size)
        assert known.num_classes == config.num_classes
    assert set(NAMES) <= set(timm.list_models(name_matches_cfg=True))
    assert not set(NAMES) & set(timm.list_models(pretrained=True))


def test_default_cfg_describes_the_model_and_its_transform() -> None:
    model = timm.create_model("vitreous_vit_pico_patch16_224", num_classes=5)
    assert model.default_cfg is model.pretrained_cfg
    assert timm.data.resolve_data_config(model=model)["input_size"] == (3, 224, 224)
    assert model.num_classes == 5


@pytest.mark.parametrize("name", kinds())
def test_default_cfg_names_the_first_and_the_last_layer(name: str) -> None:
    model = small(name, num_classes=42)
    heads = model.default_cfg["classifier"]
    for layer in (model.default_cfg["first_conv"], *([heads] if isinstance(heads, str) else heads)):
        assert f"{layer}.weight" in model.state_dict()
    assert {len(model.get_submodule(layer).weight) for layer in ([heads] if isinstance(heads, str) else heads)} == {42}


@pytest.mark.parametrize("name", kinds())
def test_forward_is_finite_and_the_same_with_grad_checkpointing(name: str) -> None:
    model, images = small(name).eval(), images_for(name, 1)
    outputs = model(images)
    assert len(outputs) == 1
    assert outputs.isfinite().all()
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(images), outputs)


@pytest.mark.parametrize("name", kinds())
def test_backward_reaches_every_parameter(name: str) -> None:
    model = small(name, num_classes=42).train()
    outputs = model(images_for(name, 2))
    outputs.mean().backward()
    assert outputs.shape == (2, 42)
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", kinds())
def test_features_have_the_promised_widths(name: str) -> None:
    model, images = small(name).eval(), images_for(name, 1)
    tokens = model.forward_features(images)
    pooled = model.forward_head(tokens, pre_logits=True)
    assert tokens.shape[2] == model.embed_dim
    assert pooled.shape[1] == model.num_features == model.head_hidden_size
    model.reset_classifier(0)
    assert model.num_classes == 0
    torch.testing.assert_close(model(images), pooled)
    assert small(name, num_classes=0).eval()(images).shape == pooled.shape


@pytest.mark.parametrize("name", kinds())
def test_intermediates_are_maps_of_each_block(name: str) -> None:
    model, images = small(name).eval(), images_for(name, 1)
    info = timm.models.FeatureInfo(model.feature_info, len(model.feature_info))
    tokens, maps = model.forward_intermediates(images)
    assert [(len(found), *found.shape[1:]) for found in maps] == [(1, width, 2, 3) for width in info.channels()]
    assert all(found.isfinite().all() for found in maps)
    torch.testing.assert_close(tokens, model.forward_features(images))


@pytest.mark.parametrize("name", kinds())
def test_features_only_gives_maps(name: str) -> None:
    model = small(name, features_only=True, out_indices=(0, 2)).eval()
    maps = model(images_for(name, 1))
    side = config_for(name.removeprefix(PREFIX)).patch_size
    assert (model.feature_info.channels(), model.feature_info.reduction()) == ([48, 48], [side, side])
    assert [tuple(found.shape) for found in maps] == [(1, 48, 2, 3)] * 2


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("training", [False, True])
def test_graph_of_fx_computes_the_same(name: str, training: bool) -> None:
    extraction = pytest.importorskip("torchvision.models.feature_extraction", reason="torchvision is not installed")
    options = {
        "leaf_modules": timm.models.get_notrace_modules(),
        "autowrap_functions": timm.models.get_notrace_functions(),
        "param_shapes_constant": True,
    }
    model, images = small(name, num_classes=42).train(training), images_for(name, 2)
    expected = model(images)
    nodes = extraction.get_graph_node_names(model, tracer_kwargs=dict(options))
    assert "encoder.blocks.1" in nodes[0]
    last = {"train_return_nodes": nodes[0][-1:], "eval_return_nodes": nodes[1][-1:]}
    graph = extraction.create_feature_extractor(model, tracer_kwargs=dict(options), **last).train(training)
    (outputs,) = graph(images).values()
    assert torch.equal(outputs, expected)
    outputs.mean().backward()
    assert [key for key, parameter in graph.named_parameters() if parameter.grad is None] == []


def test_fixed_images_of_another_size_are_an_error() -> None:
    model = timm.create_model("vitreous_vit_pico_patch16_224", img_size=64)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    with pytest.raises(ValueError, match="the model takes 64x64 px"):
        model(torch.zeros(1, 3, 80, 64))
