"""Small models and naive formulas of a block, shared by the tests of all formats."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import vitreous.model
from vitreous.errors import DamagedFileError
from vitreous.model import ModelConfig, build_model
from vitreous.model.weights.table import write_tensors
from vitreous.model.weights.torchvision import TORCHVISION


def noisy(config, *, dtype=torch.float32, seed=0):
    """Build a model in which all weights differ, so that a swap of two tensors cannot go unnoticed."""
    model = build_model(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model.to(dtype)


def assert_same(loaded, model):
    """Assert equal names, dtypes and bits."""
    theirs = model.state_dict()
    assert loaded.state_dict().keys() == theirs.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


def norm(x, weight, bias, eps):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def attend(query, key, value):
    """Attend per head; all arguments are `[heads, tokens, width]`."""
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1) @ value


def tanh_gelu(x):
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


PLAIN = ModelConfig(
    img_size=(12, 12),
    patch_size=4,
    in_chans=3,
    num_classes=7,
    embed_dim=20,
    depth=2,
    num_heads=5,
    mlp_ratio=1.5,
    position_resize="torchvision",
    init="torchvision",
)
"""A model that torchvision's format can hold; used by tests that are not about a certain format."""
HEADS = {"num_heads": 5}


def plain_state(model=None):
    """Return the tensors of a model under torchvision's names, each with its own memory."""
    model = model or noisy(PLAIN)
    written = write_tensors(TORCHVISION.rows(model.config), model.state_dict())
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in written.items()}


def write_as(kind, folder, tensors):
    """Write tensors as a file of the given kind; return the path for `load_model`."""
    path = folder / f"model.{kind.removeprefix('legacy ')}"
    match kind:
        case "safetensors":
            save_file(tensors, path)
        case "npz":
            np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
        case "index.json":
            path = folder / "model.safetensors.index.json"
            names = sorted(tensors)
            parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
            for part, inside in parts.items():
                save_file({name: tensors[name] for name in inside}, folder / part)
            weight_map = {name: part for part, inside in parts.items() for name in inside}
            path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        case _:
            torch.save(tensors, path, _use_new_zipfile_serialization=not kind.startswith("legacy"))
    return path


load_model = partial(vitreous.model.load_model, dtype=None)
"""`load_model` that keeps the dtype of the file, so that tests can compare bits."""

KINDS = ("safetensors", "npz", "index.json", "pt", "pth", "bin", "ckpt", "pth.tar", "legacy pt")


def refusal(path, error=DamagedFileError):
    """Return the error message of `load_model` without the path that it must start with."""
    with pytest.raises(error) as caught:
        load_model(path, architecture=HEADS)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert message.startswith(str(path))
    return message.removeprefix(f"{path}: ")
