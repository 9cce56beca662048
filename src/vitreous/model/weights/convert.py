"""A model -> a file that another library opens."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from vitreous import atomic
from vitreous.errors import ConfigError
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.formats import format_to_write
from vitreous.model.weights.native import save_model
from vitreous.model.weights.table import own, write_tensors


def export_weights(model: VisionTransformer, path: str | Path, *, to: str) -> Path:
    """Write a model's weights as another library names them.

    Args:
        model: In any dtype, on any device, compiled or not.
        path: `hf` takes a folder, made where there is none, and writes `config.json` too; all others take a file that
            ends in `.safetensors`, `.pth` or `.pt`, or, for `npz`, in `.npz`.
        to: `timm`, `hf`, `torchvision`, `npz`, `vit-pytorch` or `vitreous`.

    Returns:
        The file of weights.

    Raises:
        UnknownNameError: No such format.
        ConfigError: The format has no place for a part of the model, or the path another ending.
        SaveError: The file could not be written.
    """
    path = Path(path)
    if to == "vitreous":
        save_model(path, model, {})
        return path
    format_ = format_to_write(to, model.config)
    # As in save_model: the wrapper of a compiled model prefixes every name.
    plain = getattr(model, "_orig_mod", model)
    state = {name: tensor.detach().cpu() for name, tensor in plain.state_dict().items()}
    theirs = {name: own(tensor) for name, tensor in write_tensors(format_.rows(model.config), state).items()}
    beside = format_.describe(model.config)
    if beside:
        path.mkdir(parents=True, exist_ok=True)
        for name, text in beside.items():
            atomic.write_text(path / name, text)
        path = path / "model.safetensors"
    _write(path, theirs, to)
    return path


def _write(path: Path, tensors: dict[str, Tensor], to: str) -> None:
    endings = (".npz",) if to == "npz" else (".safetensors", ".pth", ".pt")
    if path.suffix not in endings:
        raise ConfigError(f"out={path}: {to} weights are kept in {' or '.join(endings)}; name the file so")

    def fill(temporary: Path) -> None:
        if path.suffix == ".npz":
            with temporary.open("wb") as stream:
                arrays: dict[str, Any] = {name: _array(tensor) for name, tensor in tensors.items()}
                np.savez(stream, **arrays)
        elif path.suffix == ".safetensors":
            save_file(tensors, temporary, metadata={"format": "pt"})
        else:
            torch.save(tensors, temporary)

    atomic.write(path, fill)


def _array(tensor: Tensor) -> NDArray[Any]:
    """The same numbers; bfloat16, which numpy does not have, becomes float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
