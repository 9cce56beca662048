"""Damaged weight files hold the tensors that torch.load, safetensors or NumPy reads from them, or are refused."""

import io
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.fuzz.campaign import Campaign
from tests.fuzz.mutation import mutated
from tests.unit.model.weights.samples import HEADS, PLAIN, noisy, plain_state

from vitreous.model import load_model, save_model
from vitreous.model.weights.reading.files import open_weights
from vitreous.use.predict.predictor import Predictor

TENSORS = plain_state(noisy(PLAIN))


def torch_files() -> list[bytes]:
    """Save the tensors as torch.save does, old and new, plain and as training scripts wrap them."""
    wrapped = [TENSORS, {"model": TENSORS, "epoch": 3}, {"state_dict": {f"module.{n}": t for n, t in TENSORS.items()}}]
    contents = []
    for content in (*wrapped, {"a": torch.arange(6).reshape(2, 3).T, "b": [1, {"c": torch.ones(2).half()}]}, [1, 2]):
        for is_new in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=is_new)
            contents.append(file.getvalue())
    return [*contents, pickle.dumps({"weights": [1, 2, 3]})]


def flat(found: object) -> Iterator[torch.Tensor]:
    """Yield all tensors in a tree of containers."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from flat(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from flat(value)


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    """Return what identifies a tensor: type, shape and bytes."""
    tensor = tensor.detach().contiguous()
    return tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def is_stored(tensor: torch.Tensor, content: bytes) -> bool:
    """Return True if a file has the bytes of a tensor, with its axes in any order."""
    return any(bits(tensor.permute(order))[2] in content for order in permutations(range(tensor.ndim)))


def read_torch(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def read_npz(path: Path) -> object:
    with np.load(path, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


READERS = {".pt": read_torch, ".npz": read_npz, ".safetensors": safetensors.torch.load_file}


def check(path: Path) -> None:
    """Compare every tensor with those of the other library, then open the file as a model."""
    with open_weights(path) as file:
        tensors = {name: file.read(name) for name in file.readers}
        shapes = dict(file.shapes)
    found = {name: bits(tensor) for name, tensor in tensors.items()}
    try:
        expected = {bits(tensor) for tensor in flat(READERS[path.suffix](path))}
    except Exception:
        # The other library refuses more, e.g. objects that are left out here: then the values are bytes of the file.
        content = path.read_bytes()
        assert all(is_stored(tensor, content) for tensor in tensors.values())
    else:
        assert set(found.values()) <= expected
    assert shapes == {name: shape for name, (_, shape, _) in found.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = load_model(path, architecture=HEADS)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_checkpoints_of_torch(campaign: Campaign) -> None:
    contents = torch_files()
    campaign.run(lambda draw: mutated(draw, contents), check, suffix=".pt", share=0.4)
    assert campaign.accepted > 0.02 * campaign.rejected


def test_checkpoints_of_safetensors(campaign: Campaign) -> None:
    contents = [safetensors.torch.save(TENSORS), safetensors.torch.save(TENSORS, {"format": "pt"})]
    campaign.run(lambda draw: mutated(draw, contents), check, suffix=".safetensors", share=0.2)
    assert campaign.accepted > 0.02 * campaign.rejected


def test_checkpoints_of_numpy(campaign: Campaign) -> None:
    contents = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **{name: tensor.numpy() for name, tensor in TENSORS.items()})
        contents.append(file.getvalue())
    campaign.run(lambda draw: mutated(draw, contents), check, suffix=".npz", share=0.2)
    assert campaign.accepted > 0.02 * campaign.rejected


def test_descriptions_of_models(campaign: Campaign, tmp_path: Path) -> None:
    model = noisy(PLAIN)
    preprocess = {"img_size": [12, 12], "in_chans": 3, "fit": "crop", "mean": [0.5] * 3, "std": [0.25] * 3}
    metadata = {"classes": list("abcdefg"), "preprocess": preprocess, "temperature": 1.5, "metrics": {}}
    path = tmp_path / "seed.safetensors"
    save_model(path, model, metadata)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with safetensors.safe_open(path, "pt") as file:
        valid = json.loads(file.metadata()["vitreous"])
    image = np.zeros((12, 12, 3), dtype=np.uint8)
    expected = Predictor.load(path).predict([image])[0].probabilities

    def make(draw: np.random.Generator) -> bytes:
        if draw.random() < 0.5:
            text = mutated(draw, [json.dumps(valid).encode()]).decode("utf-8", "replace")
        else:
            text = json.dumps(changed(draw, valid))
        return safetensors.torch.save(state, {"vitreous": text})

    def open_and_predict(path: Path) -> None:
        found = Predictor.load(path).predict([image])[0]
        assert found.label == "" or sum(found.probabilities) == pytest.approx(1, abs=1e-5)
        with safetensors.safe_open(path, "pt") as file:
            written = json.loads(file.metadata()["vitreous"])
        if written == valid:
            assert found.probabilities == expected

    campaign.run(make, open_and_predict, suffix=".safetensors", share=0.2)
    assert campaign.accepted > 0.05 * campaign.rejected


def changed(draw: np.random.Generator, tree: Any) -> Any:
    """Replace, remove or repeat one value anywhere in a tree of lists and dictionaries."""
    if isinstance(tree, dict | list) and tree and draw.random() < 0.8:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = keys[int(draw.integers(len(keys)))]
        copy = tree.copy()
        copy[key] = changed(draw, tree[key])
        return copy
    choices: list[Any] = [None, True, 0, -1, 10**20, 1e308, float("nan"), "", "ä" * 300, [], {}, [[]], [tree], {"a": 1}]
    return choices[int(draw.integers(len(choices)))]
