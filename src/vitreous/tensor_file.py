"""Path of a safetensors file <-> tensors by name; anything wrong with the file becomes one kind of error."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitreous import atomic
from vitreous.errors import DamagedFileError, VitreousError
from vitreous.wording import printable_error


class TensorFile:
    """An open safetensors file. Opening it reads the header only; tensors are read when requested.

    `names` are those of its tensors, `metadata` the strings in its header. Messages name the path, and end with the way
    out.
    """

    def __init__(self, path: Path, file: Any, way_out: str) -> None:
        self._path, self._file, self._way_out = path, file, way_out
        self.names: list[str] = list(file.keys())
        self.metadata: dict[str, str] = dict(file.metadata() or {})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by name, from the header. Raises DamagedFileError if that fails."""
        with parsing(self._path, self._way_out):
            return {name: tuple(self._file.get_slice(name).get_shape()) for name in self.names}

    def read(self, name: str) -> Tensor:
        """Read one tensor. Raises DamagedFileError if that fails."""
        with parsing(self._path, self._way_out):
            # A copy: the file is memory-mapped, and a model must not change if the file is overwritten in place.
            return self._file.get_tensor(name).clone()

    def read_all(self) -> dict[str, Tensor]:
        """Read all tensors, by name. Raises DamagedFileError if that fails."""
        return {name: self.read(name) for name in self.names}


@contextmanager
def open_tensor_file(path: Path, *, way_out: str) -> Iterator[TensorFile]:
    """Open a safetensors file.

    The message about a damaged file ends with `way_out`, what the user can do.

    Raises:
        DamagedFileError: The file is missing, cut short, altered, or not a safetensors file.
    """
    with parsing(path, way_out):
        # safe_open checks that the header's offsets fill the file exactly before anything is allocated.
        handle = safe_open(path, framework="pt")
    with handle as file:
        yield TensorFile(path, file, way_out)


@contextmanager
def parsing(path: Path, way_out: str) -> Iterator[None]:
    """Turn whatever a parser raises into DamagedFileError: on unknown bytes it may raise anything.

    The message ends with `way_out`, what the user can do.
    """
    try:
        yield
    except VitreousError:
        raise
    except Exception as error:
        reason = printable_error(error)
        raise DamagedFileError(f"{path}: cannot be read as {path.suffix or 'weights'} ({reason}); {way_out}") from error


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically. Raises SaveError if it cannot be written; an older file is then untouched.

    Tensors are contiguous, and none shares memory with another; the metadata are strings for the header.
    """

    def fill(temporary: Path) -> None:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
            if len(metadata) > 1:
                _order_metadata(temporary, metadata)
        except SafetensorError as error:  # safetensors reports a full disk this way
            raise OSError(str(error)) from error

    atomic.write(path, fill)


def _order_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Put the metadata of a new file into this order, as safetensors writes them in a random one, in the same space."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = {key: header["__metadata__"][key] for key in metadata}
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


def checksum(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return a hash of tensors on any device, their names, and a text."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        values = tensors[name].detach().cpu().contiguous()
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
