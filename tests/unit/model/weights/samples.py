"""Small models and the mathematics of a plain block, for tests of all formats."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitreous.errors import DamagedFileError
from vitreous.model import ModelConfig, build_model, load_model
from vitreous.model.weights.table import write_tensors
from vitreous.model.weights.torchvision import TORCHVISION


def noisy(config, *, dtype=torch.float32, seed=0):
    """A model in which no two weights are alike, so that none can take another's place unseen."""
    model = build_model(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model.to(dtype)


def assert_same(loaded, model):
    """Bit for bit the same weights in the same dtype."""
    theirs = model.state_dict()
    assert loaded.state_dict().keys() == theirs.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


def norm(x, weight, bias, eps):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def attend(query, key, value):
    """Per head: `[heads, tokens, width]` each."""
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
"""What torchvision's names can hold; they stand for all formats where a test is not about one."""
HEADS = {"num_heads": 5}


def plain_state(model=None):
    """A model's tensors under torchvision's names, each with memory of its own."""
    model = model or noisy(PLAIN)
    written = write_tensors(TORCHVISION.rows(model.config), model.state_dict())
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in written.items()}


def write_as(kind, folder, tensors):
    """Write tensors as a file of a kind; returns what to give `load_model`."""
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


KINDS = ("safetensors", "npz", "index.json", "pt", "pth", "bin", "ckpt", "pth.tar", "legacy pt")


def refusal(path, error=DamagedFileError):
    """The message without the path, which it must begin with."""
    with pytest.raises(error) as caught:
        load_model(path, architecture=HEADS)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert message.startswith(str(path))
    return message.removeprefix(f"{path}: ")
