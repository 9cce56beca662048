import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.model.weights.samples import HEADS, PLAIN, assert_same, noisy

from vitreous.errors import ConfigError, SaveError, UnknownNameError
from vitreous.model import load_model
from vitreous.model.weights import export_weights, is_native


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_bit_and_the_dtype_come_back(tmp_path, ending, dtype):
    model = noisy(PLAIN, dtype=dtype)
    path = tmp_path / f"x{ending}"
    assert export_weights(model, path, to="torchvision") == path
    assert_same(load_model(path, architecture=HEADS), model)


def test_vitreous_is_a_format_too(tmp_path):
    model = noisy(dataclasses.replace(PLAIN, num_registers=2, act="relu"))
    path = export_weights(model, tmp_path / "x.safetensors", to="vitreous")
    assert is_native(path)
    assert load_model(path).config == model.config
    assert_same(load_model(path), model)


def test_what_is_written_does_not_keep_more_than_itself(tmp_path):
    model = noisy(dataclasses.replace(PLAIN, act="gelu_tanh"))
    sizes = {}
    for to, name in (("npz", "x.npz"), ("torchvision", "x.pt")):
        changed = model if to == "npz" else noisy(PLAIN)
        sizes[to] = export_weights(changed, tmp_path / name, to=to).stat().st_size
    plain = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert all(plain < size < 2 * plain + 20_000 for size in sizes.values())
    for tensor in torch.load(tmp_path / "x.pt").values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_a_compiled_model_has_plain_names(tmp_path):
    model = noisy(PLAIN)
    path = export_weights(torch.compile(model, backend="eager"), tmp_path / "x.pt", to="torchvision")
    assert_same(load_model(path, architecture=HEADS), model)


def test_an_npz_holds_arrays_alone(tmp_path):
    export_weights(noisy(dataclasses.replace(PLAIN, act="gelu_tanh")), tmp_path / "x.npz", to="npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert "allow_pickle" not in arrays
        assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}


def test_a_safetensors_file_says_whose_tensors_it_holds(tmp_path):
    export_weights(noisy(PLAIN), tmp_path / "x.safetensors", to="torchvision")
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "y.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_an_unknown_format_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        export_weights(noisy(PLAIN), tmp_path / "x.pt", to="torchvison")
    assert str(caught.value) == "to=torchvison: no such format; did you mean torchvision?"


@pytest.mark.parametrize(
    ("to", "name", "endings"),
    [("torchvision", "x.npz", ".safetensors or .pth or .pt"), ("npz", "x.safetensors", ".npz")],
)
def test_another_ending_is_refused(tmp_path, to, name, endings):
    model = noisy(dataclasses.replace(PLAIN, act="gelu_tanh" if to == "npz" else "gelu"))
    with pytest.raises(ConfigError) as caught:
        export_weights(model, tmp_path / name, to=to)
    assert str(caught.value) == f"out={tmp_path / name}: {to} weights are kept in {endings}; name the file so"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.npz"])
def test_a_folder_that_is_not_there_is_a_save_error(tmp_path, name):
    to = "npz" if name == "x.npz" else "torchvision"
    model = noisy(dataclasses.replace(PLAIN, act="gelu_tanh" if to == "npz" else "gelu"))
    with pytest.raises(SaveError, match=r"could not be written \(No such file or directory\)"):
        export_weights(model, tmp_path / "nowhere" / name, to=to)
