import dataclasses
import os
import resource

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.model.weights.samples import HEADS, PLAIN, assert_same, load_model, noisy

from vitreous.errors import ConfigError, SaveError, UnknownNameError
from vitreous.model.weights import export_weights, is_native

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_export_keeps_every_bit_and_the_dtype(tmp_path, ending, dtype):
    model = noisy(PLAIN, dtype=dtype)
    path = tmp_path / f"x{ending}"
    assert export_weights(model, path, to="torchvision") == path
    assert_same(load_model(path, architecture=HEADS), model)


def test_vitreous_is_an_export_format(tmp_path):
    model = noisy(dataclasses.replace(PLAIN, num_registers=2, act="relu"))
    path = export_weights(model, tmp_path / "x.safetensors", to="vitreous")
    assert is_native(path)
    assert load_model(path).config == model.config
    assert_same(load_model(path), model)


def test_written_tensors_do_not_share_larger_storage(tmp_path):
    model = noisy(dataclasses.replace(PLAIN, act="gelu_tanh"))
    sizes = {}
    for to, name in (("npz", "x.npz"), ("torchvision", "x.pt")):
        changed = model if to == "npz" else noisy(PLAIN)
        sizes[to] = export_weights(changed, tmp_path / name, to=to).stat().st_size
    plain = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert all(plain < size < 2 * plain + 20_000 for size in sizes.values())
    for tensor in torch.load(tmp_path / "x.pt").values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_compiled_model_is_written_under_plain_names(tmp_path):
    model = noisy(PLAIN)
    path = export_weights(torch.compile(model, backend="eager"), tmp_path / "x.pt", to="torchvision")
    assert_same(load_model(path, architecture=HEADS), model)


def test_npz_holds_only_arrays(tmp_path):
    export_weights(noisy(dataclasses.replace(PLAIN, act="gelu_tanh")), tmp_path / "x.npz", to="npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert "allow_pickle" not in arrays
        assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}


def test_safetensors_file_is_marked_as_pytorch(tmp_path):
    export_weights(noisy(PLAIN), tmp_path / "x.safetensors", to="torchvision")
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "y.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_unknown_format_suggests_the_nearest_name(tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        export_weights(noisy(PLAIN), tmp_path / "x.pt", to="torchvison")
    assert str(caught.value) == "to=torchvison: no such format; did you mean torchvision?"


@pytest.mark.parametrize(
    ("to", "name", "suffixes"),
    [("torchvision", "x.npz", ".safetensors or .pth or .pt"), ("npz", "x.safetensors", ".npz")],
)
def test_wrong_suffix_is_refused(tmp_path, to, name, suffixes):
    model = noisy(dataclasses.replace(PLAIN, act="gelu_tanh" if to == "npz" else "gelu"))
    with pytest.raises(ConfigError) as caught:
        export_weights(model, tmp_path / name, to=to)
    assert str(caught.value) == (
        f"out={tmp_path / name}: {to} weights cannot be written to this type of file; use the suffix {suffixes}"
    )
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_created_is_a_save_error(tmp_path):
    (tmp_path / "file").write_text("")
    model = noisy(dataclasses.replace(PLAIN, norm_eps=1e-12))
    for path, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "x", "Not a directory")):
        with pytest.raises(SaveError) as caught:
            export_weights(model, path, to="hf")
        assert str(caught.value) == f"{path}: cannot be created ({reason}); choose another folder"


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.npz"])
def test_missing_folder_is_a_save_error(tmp_path, name):
    to = "npz" if name == "x.npz" else "torchvision"
    model = noisy(dataclasses.replace(PLAIN, act="gelu_tanh" if to == "npz" else "gelu"))
    with pytest.raises(SaveError, match=r"could not be written \(No such file or directory\)"):
        export_weights(model, tmp_path / "nowhere" / name, to=to)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file size limit")
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.npz"])
def test_full_disk_is_a_save_error(tmp_path, name):
    to = "npz" if name == "x.npz" else "torchvision"
    model = noisy(dataclasses.replace(PLAIN, act="gelu_tanh" if to == "npz" else "gelu"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(SaveError, match="could not be written"):
            export_weights(model, tmp_path / name, to=to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
