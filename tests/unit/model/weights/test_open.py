import sys

import numpy as np
import pytest
import torch
from tests.unit.model.weights.samples import (
    HEADS,
    PLAIN,
    assert_same,
    load_model,
    noisy,
    plain_state,
    refusal,
    write_as,
)

from vitreous.errors import ConfigError, DamagedFileError, MissingDependencyError, UnknownNameError
from vitreous.model.parts.embedding import resize_grid
from vitreous.model.weights.formats import FORMATS, TARGETS
from vitreous.model.weights.open import identify, load_foreign
from vitreous.model.weights.reading.files import open_weights
from vitreous.model.weights.table import Hints

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")


@pytest.fixture
def path(tmp_path):
    return write_as("safetensors", tmp_path, plain_state())


def test_loaded_model_is_ready_to_use(path):
    loaded = load_model(str(path), architecture=HEADS)
    assert not loaded.training
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in loaded.parameters())
    images = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(loaded(images), noisy(PLAIN)(images))


def test_weights_do_not_share_larger_storage(path):
    for parameter in load_model(path, architecture=HEADS).parameters():
        assert parameter.is_contiguous()
        assert parameter.untyped_storage().nbytes() == 4 * parameter.numel()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["safetensors", "pt", "legacy pt"])
def test_dtype_of_the_file_is_kept(tmp_path, kind, dtype):
    model = noisy(PLAIN, dtype=dtype)
    assert_same(load_model(write_as(kind, tmp_path, plain_state(model)), architecture=HEADS), model)


@pytest.mark.parametrize(
    ("narrow", "wide", "widest"),
    [
        (torch.float16, torch.float32, torch.float32),
        (torch.bfloat16, torch.float64, torch.float64),
        (torch.float16, torch.bfloat16, torch.float32),
    ],
)
def test_mixed_dtypes_become_the_widest(tmp_path, narrow, wide, widest):
    state = {name: tensor.to(narrow) for name, tensor in plain_state().items()}
    state["encoder.ln.weight"] = state["encoder.ln.weight"].to(wide)
    loaded = load_model(write_as("safetensors", tmp_path, state), architecture=HEADS)
    assert {parameter.dtype for parameter in loaded.parameters()} == {widest}
    assert torch.equal(loaded.encoder.norm.weight, state["encoder.ln.weight"].to(widest))


def test_integers_are_refused(tmp_path):
    state = {**plain_state(), "heads.head.bias": torch.arange(7)}
    assert refusal(write_as("pt", tmp_path, state)).startswith(
        "these weights are not finite floating-point numbers: heads.head.bias;"
    )


def test_other_number_of_classes_gives_a_fresh_head(path):
    loaded, model = load_model(path, architecture=HEADS, num_classes=3), noisy(PLAIN)
    assert loaded.config.num_classes == 3
    assert loaded.head.weight.shape == (3, 20)
    assert torch.equal(loaded.encoder.blocks[1].mlp.fc2.weight, model.encoder.blocks[1].mlp.fc2.weight)
    assert load_model(path, architecture=HEADS, num_classes=0)(torch.zeros(1, 3, 12, 12)).shape == (1, 20)
    assert_same(load_model(path, architecture=HEADS, num_classes=7), model)
    with pytest.raises(ConfigError, match=r"^model\.num_classes=-1: must be from 0 to 2,147,483,647"):
        load_model(path, architecture=HEADS, num_classes=-1)


def test_other_image_size_resamples_positions_as_the_library_of_the_file_does(path):
    loaded, model = load_model(path, architecture=HEADS, img_size=(20, 24)), noisy(PLAIN)
    assert loaded.config.img_size == (20, 24)
    expected = resize_grid(model.position.grid.detach(), (5, 6), "torchvision")
    torch.testing.assert_close(loaded.position.grid.detach(), expected, rtol=0, atol=0)
    assert load_model(path, architecture=HEADS, img_size=16).config.img_size == (16, 16)
    assert_same(load_model(path, architecture=HEADS, img_size=12), model)
    with pytest.raises(ConfigError, match=r"patch_size=4: does not divide data\.img_size=14"):
        load_model(path, architecture=HEADS, img_size=14)


def test_architecture_of_the_user_wins(path):
    loaded = load_model(path, architecture={"num_heads": 4, "act": "relu", "norm_eps": 1e-5, "drop_path_rate": 0.1})
    assert (loaded.config.num_heads, loaded.config.act, loaded.config.norm_eps) == (4, "relu", 1e-5)


@pytest.mark.parametrize(
    ("architecture", "error", "reason"),
    [
        ({"head": 5}, UnknownNameError, "architecture.head=5: no such key; did you mean head_dim?"),
        ({"num_heads": 3}, ConfigError, "model.num_heads=3: does not divide model.embed_dim=20 (remainder 2)"),
        ({"num_heads": "5"}, ConfigError, "model.num_heads='5': must be a whole number from 1 to 2,147,483,647"),
        ({"num_heads": 5, "mlp_bias": False}, ConfigError, "weights=encoder.blocks.0.mlp.fc1.bias, "),
        ({"num_heads": 5, "qk_norm": True}, ConfigError, "this format cannot hold them; use another format"),
    ],
)
def test_architecture_that_does_not_fit_gives_a_one_line_error(path, architecture, error, reason):
    with pytest.raises(error) as caught:
        load_model(path, architecture=architecture)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


def test_wrong_depth_and_width_list_the_tensors(path):
    with pytest.raises(DamagedFileError) as caught:
        load_model(path, architecture={**HEADS, "depth": 3, "mlp_ratio": 2.0})
    message = str(caught.value)
    assert "(missing: encoder.layers.encoder_layer_2.ln_1.bias, " in message
    assert " and 4 more; wrong shape: encoder.layers.encoder_layer_0.mlp.0.bias is 30, must be 40, " in message
    assert message.endswith("; the model differs from its name or description; pass its name, or architecture={…}")


def test_missing_unexpected_and_misshapen_tensors_are_listed_in_one_line(tmp_path):
    state = plain_state()
    state["stranger"] = state.pop("encoder.ln.bias")
    state["heads.head.bias"] = torch.zeros(9)
    assert refusal(write_as("pt", tmp_path, state)) == (
        "its tensors do not match the model (missing: encoder.ln.bias; unexpected: stranger; "
        "wrong shape: heads.head.bias is 9, must be 7); "
        "the model differs from its name or description; pass its name, or architecture={…}"
    )


def test_one_shard_of_several_names_a_missing_tensor(tmp_path):
    shard = {name: tensor for name, tensor in plain_state().items() if "encoder_layer_0" not in name}
    assert refusal(write_as("pt", tmp_path, shard)) == (
        "has the format torchvision, but lacks encoder.layers.encoder_layer_0.mlp.0.weight; "
        "it is cut short, or one shard of several: download all of it"
    )


@pytest.mark.parametrize("shape", [(), (20,), (20, 48), (20, 3, 4, 4, 1), (0, 0, 0, 0), (20, 3, 0, 0)])
def test_tensor_of_impossible_shape_gives_a_one_line_error(tmp_path, shape):
    state = {**plain_state(), "conv_proj.weight": torch.zeros(shape)}
    path = write_as("pt", tmp_path, state)
    with pytest.raises((DamagedFileError, ConfigError)) as caught:
        load_model(path, architecture=HEADS)
    assert str(caught.value).isprintable()


def test_one_tensor_under_two_names_is_refused(tmp_path):
    state = plain_state()
    state["encoder.layers.encoder_layer_0.mlp.linear_1.bias"] = torch.zeros(30)
    assert "mlp.0.bias under two names; remove one of them" in refusal(write_as("pt", tmp_path, state))


def test_unknown_format_lists_its_tensors_and_the_known_formats(tmp_path):
    state = {"layer1.0.conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(3)}
    message = refusal(write_as("pt", tmp_path, state))
    assert message.startswith(
        "has 2 tensors (fc.bias, layer1.0.conv1.weight) with names of no known Vision Transformer; "
        "use a file in one of these formats: vitreous, "
    )
    libraries = ("transformers", "timm", "torchvision", "open_clip", "vit-pytorch", "vision_transformer", "big_vision")
    assert set(message.rpartition(": ")[2].split(", ")) == {"vitreous", "dinov2", "dinov3", *libraries}


def test_every_format_that_can_be_read_can_be_written():
    assert {format_.name for formats in TARGETS.values() for format_ in formats} == {f.name for f in FORMATS}


def test_identifying_a_file_reads_none_of_its_tensors(path):
    with open_weights(path) as file:
        file.readers = {}
        found = identify(file, Hints(architecture=HEADS))
    assert (found.format_.name, found.config, found.left_out) == ("torchvision", PLAIN, {})
    assert found.names["class_token"] == "class_token"


def test_open_file_gives_the_same_model(path):
    with open_weights(path) as file:
        assert_same(load_foreign(file, identify(file, Hints(architecture=HEADS))), noisy(PLAIN))


def test_model_is_opened_from_the_hub(tmp_path, hub):
    path = write_as("safetensors", tmp_path, plain_state())
    hub.repos["org/name"] = {"model.safetensors": path.read_bytes()}
    assert_same(load_model("hf://org/name", architecture=HEADS), noisy(PLAIN))


def test_missing_hub_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError) as caught:
        load_model("hf://org/name")
    assert str(caught.value) == (
        "hf://org/name: needs huggingface_hub, which is not installed; run pip install 'vitreous[hub]'"
    )


def test_description_cannot_execute_code(tmp_path):
    path = write_as("npz", tmp_path, plain_state())
    (tmp_path / "config.json").write_text('{"architectures": ["os.system"], "num_heads": "__import__"}')
    assert_same(load_model(path, architecture=HEADS), noisy(PLAIN))
    assert np.load(path).files
