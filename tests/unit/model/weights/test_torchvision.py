import dataclasses

import pytest
import torch
from tests.unit.model.weights.samples import (
    HEADS,
    PLAIN,
    assert_same,
    attend,
    load_model,
    noisy,
    norm,
    plain_state,
    write_as,
)
from torch.nn import functional as F

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.weights import export_weights

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

OUTSIDE = """
class_token conv_proj.weight conv_proj.bias encoder.pos_embedding encoder.ln.weight encoder.ln.bias
heads.head.weight heads.head.bias
"""
BLOCK = """
ln_1.weight ln_1.bias self_attention.in_proj_weight self_attention.in_proj_bias self_attention.out_proj.weight
self_attention.out_proj.bias ln_2.weight ln_2.bias mlp.0.weight mlp.0.bias mlp.3.weight mlp.3.bias
"""


def test_names_are_those_in_torchvision():
    blocks = [f"encoder.layers.encoder_layer_{number}.{name}" for number in range(2) for name in BLOCK.split()]
    assert set(plain_state()) == {*OUTSIDE.split(), *blocks}


def test_shapes_are_those_in_torchvision():
    shapes = {name: tuple(tensor.shape) for name, tensor in plain_state().items()}
    assert shapes["class_token"] == (1, 1, 20)
    assert shapes["conv_proj.weight"] == (20, 3, 4, 4)
    assert shapes["encoder.pos_embedding"] == (1, 10, 20)
    assert shapes["encoder.layers.encoder_layer_1.self_attention.in_proj_weight"] == (60, 20)
    assert shapes["encoder.layers.encoder_layer_1.mlp.3.weight"] == (20, 30)


@pytest.mark.parametrize("num_classes", [7, 0])
def test_round_trip_keeps_every_bit(tmp_path, num_classes):
    model = noisy(dataclasses.replace(PLAIN, num_classes=num_classes))
    path = export_weights(model, tmp_path / "x.safetensors", to="torchvision")
    loaded = load_model(path, architecture=HEADS)
    assert loaded.config == model.config
    assert_same(loaded, model)
    again = export_weights(loaded, tmp_path / "y.safetensors", to="torchvision")
    assert again.read_bytes() == path.read_bytes()


def test_logits_equal_torchvisions_formulas(tmp_path):
    w = {name: tensor.double() for name, tensor in plain_state().items()}
    image = torch.randn(3, 12, 12, dtype=torch.float64)
    x = F.conv2d(image[None], w["conv_proj.weight"], w["conv_proj.bias"], stride=4).flatten(2).mT[0]
    x = torch.cat([w["class_token"][0], x]) + w["encoder.pos_embedding"][0]
    for number in range(2):
        block = {name: w[f"encoder.layers.encoder_layer_{number}.{name}"] for name in BLOCK.split()}
        inner = norm(x, block["ln_1.weight"], block["ln_1.bias"], 1e-6) @ block["self_attention.in_proj_weight"].T
        inner = (inner + block["self_attention.in_proj_bias"]).view(10, 3, 5, 4).permute(1, 2, 0, 3)
        attended = attend(*inner).transpose(0, 1).reshape(10, 20)
        x = x + attended @ block["self_attention.out_proj.weight"].T + block["self_attention.out_proj.bias"]
        hidden = norm(x, block["ln_2.weight"], block["ln_2.bias"], 1e-6) @ block["mlp.0.weight"].T + block["mlp.0.bias"]
        x = x + F.gelu(hidden) @ block["mlp.3.weight"].T + block["mlp.3.bias"]
    features = norm(x, w["encoder.ln.weight"], w["encoder.ln.bias"], 1e-6)[0]
    expected = features @ w["heads.head.weight"].T + w["heads.head.bias"]
    model = load_model(write_as("pt", tmp_path, w), architecture=HEADS)
    torch.testing.assert_close(model(image[None])[0], expected, rtol=1e-10, atol=1e-10)


def test_older_names_of_torchvision_are_read(tmp_path):
    model = noisy(PLAIN)
    older = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for name, tensor in plain_state(model).items()
    }
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in older
    assert_same(load_model(write_as("pth", tmp_path, older), architecture=HEADS), model)


def test_number_of_heads_of_a_published_size_is_known(tmp_path):
    config = dataclasses.replace(PLAIN, embed_dim=192, depth=12, num_heads=3, mlp_ratio=0.1)
    loaded = load_model(write_as("safetensors", tmp_path, plain_state(noisy(config))))
    assert loaded.config.num_heads == 3


def test_number_of_heads_must_be_given_or_follow_from_the_name(tmp_path):
    path = write_as("safetensors", tmp_path, plain_state())
    with pytest.raises(ConfigError) as caught:
        load_model(path)
    assert str(caught.value) == (
        "num_heads=None: not known from the shapes, and no published model has width 20 and depth 2; "
        "pass the model's name, or architecture={'num_heads': 1}, or --architecture.num_heads 1"
    )
    with pytest.raises(ConfigError) as caught:
        load_model(path, name="vit_tiny_patch16_224")
    assert str(caught.value) == (
        "name=vit_tiny_patch16_224: has width 192 and depth 12, but the file has 20 and 2; "
        "pass another name, or architecture={'num_heads': 1}, or --architecture.num_heads 1"
    )
    with pytest.raises(UnknownNameError, match="no such model"):
        load_model(path, name="vit_tinny_patch16_224")


def test_name_decides_between_two_published_numbers_of_heads(tmp_path):
    config = dataclasses.replace(PLAIN, embed_dim=192, depth=6, num_heads=6, mlp_ratio=0.1)
    path = write_as("safetensors", tmp_path, plain_state(noisy(config)))
    assert load_model(path, name="vit_mini_patch4_32").config.num_heads == 6


def test_grid_that_is_not_square_must_be_given(tmp_path):
    config = dataclasses.replace(PLAIN, img_size=(12, 20))
    path = write_as("safetensors", tmp_path, plain_state(noisy(config)))
    with pytest.raises(ConfigError) as caught:
        load_model(path, architecture=HEADS)
    assert str(caught.value) == (
        "img_size=None: the 15 positions of the file do not fill a square grid; "
        "pass architecture={'img_size': (12, 20)}, or --architecture.img_size 12x20 (height x width)"
    )
    assert load_model(path, architecture={**HEADS, "img_size": (12, 20)}).config == config


@pytest.mark.parametrize(
    ("changes", "refused"), [({"act": "relu"}, "model.act=relu"), ({"num_registers": 2}, "model.num_registers=2")]
)
def test_model_that_torchvision_does_not_have_is_refused(tmp_path, changes, refused):
    with pytest.raises(ConfigError) as caught:
        export_weights(noisy(dataclasses.replace(PLAIN, **changes)), tmp_path / "x.pt", to="torchvision")
    assert str(caught.value) == (
        f"to=torchvision: torchvision cannot hold {refused}; use to=vitreous or another format"
    )
