"""Model -> weights file that another library can open."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous import atomic
from vitreous.errors import ConfigError
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.formats import format_to_write
from vitreous.model.weights.native import header_of, save_model, uncompiled
from vitreous.model.weights.table import compact, write_tensors
from vitreous.tensor_file import write_tensor_file

_SUFFIXES = (".safetensors", ".pth", ".pt")


def export_weights(
    model: VisionTransformer, path: str | Path, *, to: str, metadata: Mapping[str, object] | None = None
) -> Path:
    """Write the weights of a model under the names that another library uses.

    Args:
        model: In any dtype, on any device, compiled or not.
        path: For `hf`, and for `timm` with `metadata`, a folder, created if needed, which also gets a `config.json`.
            For `npz` a file that ends in `.npz`. For all others a file that ends in `.safetensors`, `.pth` or `.pt`.
        to: `timm`, `hf`, `torchvision`, `npz`, `open-clip`, `vit-pytorch`, `meta` or `vitreous`.
        metadata: As for `save_model`, so that our reader finds all in a `.safetensors` file; None for no description.

    Returns:
        Path of the weights file.

    Raises:
        UnknownNameError: There is no such format.
        ConfigError: The format cannot hold a part of the model, or the path has the wrong suffix.
        SaveError: The file could not be written.
    """
    path = Path(path)
    if to == "vitreous":
        save_model(path, model, metadata or {})
        return path
    format_ = format_to_write(to, model.config)
    state = {name: tensor.detach().cpu() for name, tensor in uncompiled(model).state_dict().items()}
    theirs = {name: compact(tensor) for name, tensor in write_tensors(format_.rows(model.config), state).items()}
    is_folder = to == "hf" or (to == "timm" and metadata is not None)
    extra_files = format_.describe(model.config) if is_folder else {}
    if extra_files:
        atomic.create_folder(path)
        for name, text in extra_files.items():
            atomic.write_text(path / name, text)
        path = path / "model.safetensors"
    _write(path, theirs, to, {} if metadata is None else header_of(model.config, metadata, format_.name))
    return path


def _write(path: Path, tensors: dict[str, Tensor], to: str, header: Mapping[str, str]) -> None:
    suffixes = (".npz",) if to == "npz" else _SUFFIXES
    if path.suffix not in suffixes:
        raise ConfigError(
            f"out={path}: {to} weights cannot be written to this type of file; use the suffix {' or '.join(suffixes)}"
        )
    if path.suffix == ".safetensors":
        write_tensor_file(path, tensors, {"format": "pt", **header})
        return

    def fill(temporary: Path) -> None:
        if path.suffix == ".npz":
            with temporary.open("wb") as stream:
                arrays: dict[str, Any] = {name: _array(tensor) for name, tensor in tensors.items()}
                np.savez(stream, **arrays)
        else:
            content = io.BytesIO()  # given a path on a full disk, torch raises a RuntimeError about positions
            torch.save(tensors, content)
            temporary.write_bytes(content.getbuffer())

    atomic.write(path, fill)


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return the values as a numpy array; bfloat16, which numpy lacks, becomes float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
