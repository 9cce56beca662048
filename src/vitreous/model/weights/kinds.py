"""Weight file of any type -> tensors by name, and whatever describes them; no code in the file is ever executed."""

import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitreous.errors import DamagedFileError, VitreousError
from vitreous.printable import printable, printable_error, printable_list
from vitreous.tensor_file import open_tensor_file, parsing

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
_WAY_OUT = "if it is cut short or altered, download it again"
_MAX_JSON_BYTES = 8 * 2**20
_MAX_UNPACK_RATIO = 100
"""Largest accepted ratio of tensor bytes to file size: real weights hardly compress, so more is a zip bomb."""
_MAX_NESTING = 4
_ZIP_MAGIC = b"PK\x03\x04"
_STATE_DICT_KEYS = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "state_dict",
    "model",
    "model_state_dict",
    "module",
    "teacher",
    "params",
)
"""Where training scripts keep weights in a checkpoint. Averaged weights come first, as in timm."""


@dataclass
class WeightFile:
    """An open weights file.

    Attributes:
        path: The file.
        tensors: Tensors by name; read from disk when first requested, if the type of file allows it.
        shapes: Shapes by name, known before any tensor is read.
        settings: The `config.json` in the same folder; empty if there is none.
        metadata: Strings in a safetensors header, by key.
        notes: Remarks for the user on how the file was opened, one sentence each.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    settings: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_one(path: Path, stack: ExitStack) -> WeightFile:
    """Open one file, to be closed by `stack`. Raises DamagedFileError if it holds no tensors, or code."""
    if path.suffix == ".safetensors":
        return _open_safetensors(path, stack)
    if path.suffix == ".npz":
        with parsing(path, _WAY_OUT):
            return _open_npz(path, stack)
    return _open_torch(path)


def read_settings(path: Path) -> dict[str, Any]:
    """Read the `config.json` in the folder of a file; empty if there is none."""
    config = path.parent / "config.json"
    return read_json(config) if config.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises DamagedFileError if the file is something else, or too large for a description."""
    size = path.stat().st_size
    if size > _MAX_JSON_BYTES:
        raise DamagedFileError(
            f"{path}: has {size:,} bytes, more than the {_MAX_JSON_BYTES:,} that a description may have; "
            "download it again"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise DamagedFileError(f"{path}: is not valid JSON ({printable_error(error)}); download it again") from error
    if not isinstance(values, dict):
        raise DamagedFileError(f"{path}: must be a JSON object, not a {type(values).__name__}; download it again")
    return values


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, each read by its own function when requested; errors become DamagedFileError."""

    def __init__(self, path: Path, readers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._path = path
        self._readers = readers

    def __getitem__(self, name: str) -> Tensor:
        reader = self._readers[name]
        with parsing(self._path, _WAY_OUT):
            return reader()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _open_safetensors(path: Path, stack: ExitStack) -> WeightFile:
    file = stack.enter_context(open_tensor_file(path, way_out=_WAY_OUT))
    readers = {name: partial(file.read, name) for name in file.names}
    return WeightFile(path, LazyTensors(path, readers), file.shapes(), read_settings(path), file.metadata)


def _open_npz(path: Path, stack: ExitStack) -> WeightFile:
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = [info for info in archive.infolist() if not info.is_dir()]
    shapes, readers, sizes = {}, {}, []
    for info in members:
        name = info.filename.removesuffix(".npy")
        shape, dtype, stored = _npy_header(archive, info)
        declared = math.prod(shape) * dtype.itemsize
        fault = None
        if dtype.hasobject:
            fault = "holds Python objects, which could be code"
        elif name in shapes:
            fault = "occurs twice"
        elif declared != stored:
            fault = f"has {stored:,} bytes, but its header declares {declared:,}"
        if fault:
            raise DamagedFileError(f"{path}: array {printable(name)} {fault}; download it again")
        shapes[name] = shape
        sizes.append(declared)
        readers[name] = partial(_read_npy, archive, info)
    _check_unpacked(path, sizes)
    return WeightFile(path, LazyTensors(path, readers), shapes, read_settings(path))


def _npy_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, type, and the number of bytes after the header."""
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        return tuple(shape), dtype, info.file_size - stream.tell()


def _read_npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    with archive.open(info) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read()  # the checksum is compared at the end of the stream
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # bfloat16, which numpy stores as two untyped bytes
        return torch.from_numpy(array.view(np.uint16).astype(np.int32) << 16).view(torch.float32).to(torch.bfloat16)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _open_torch(path: Path) -> WeightFile:
    try:
        zipped = _check_torch_archive(path)
        # weights_only rejects every pickled object except tensors and plain containers.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except VitreousError:
        raise
    except Exception as error:  # on unknown bytes the unpickler may raise anything
        raise DamagedFileError(
            f"{path}: is cut short, or holds more than tensors, which could be code ({printable_error(error)}); "
            "save only its state_dict(), preferably as .safetensors"
        ) from error
    found, notes = _find_state_dict(loaded)
    if not found:
        raise DamagedFileError(f"{path}: holds no tensors by name; give a file with a state_dict()")
    for name, tensor in found.items():
        if not _is_plain(tensor):
            shape = tuple(tensor.shape)
            raise DamagedFileError(
                f"{path}: {printable(name)} has shape {shape}, but fewer values are stored; download it again"
            )
    _check_unpacked(path, (tensor.numel() * tensor.element_size() for tensor in found.values()))
    readers = {name: tensor.detach().clone for name, tensor in found.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    return WeightFile(path, LazyTensors(path, readers), shapes, read_settings(path), notes=notes)


def _check_torch_archive(path: Path) -> bool:
    """Return True for a zip archive of torch.save. Raises DamagedFileError if its members are compressed."""
    with path.open("rb") as stream:
        if stream.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            return False
    with zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise DamagedFileError(
            f"{path}: its members {printable_list(packed, 2)} are compressed, as torch.save never does; save it again"
        )
    return True


def _is_plain(tensor: Tensor) -> bool:
    """Return True if every value is stored once: not sparse, quantized, nested, expanded or without storage."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _check_unpacked(path: Path, sizes: Iterable[int]) -> None:
    """Raise DamagedFileError if tensors of these sizes in bytes cannot come from a file of this size."""
    declared, size = sum(sizes), path.stat().st_size
    if declared > _MAX_UNPACK_RATIO * size:
        raise DamagedFileError(
            f"{path}: would unpack from {size:,} bytes to {declared:,}, which real weights never do; download it again"
        )


def _find_state_dict(loaded: object, depth: int = 0) -> tuple[dict[str, Tensor], list[str]]:
    """Find the innermost dictionary of tensors under the usual keys; also return notes on what was passed over."""
    if not isinstance(loaded, Mapping) or depth > _MAX_NESTING:
        return {}, []
    for key in _STATE_DICT_KEYS:
        found, notes = _find_state_dict(loaded.get(key), depth + 1)
        if found:
            return found, [f"read the weights under {key!r}; the file has {printable_list(map(str, loaded))}", *notes]
    tensors = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    others = [str(name) for name in loaded if name not in tensors]
    return tensors, [f"skipped {printable_list(others)}: not tensors"] if tensors and others else []
