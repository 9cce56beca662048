"""One file -> its tensors by name and whatever describes them, by the kind of the file; nothing is executed."""

import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from vitreous.errors import DamagedFileError, VitreousError
from vitreous.model.weights.strict import listed, shown

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
_MOST_JSON_BYTES = 8 * 2**20
_MOST_UNPACKED = 100
"""Times its size on disk that a file may hold: real weights hardly compress, and a bomb must not be unpacked."""
_DEEPEST = 4
_TORCH_ZIP = b"PK\x03\x04"
_NESTED = (
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
"""Where training scripts keep weights in a checkpoint, the averaged ones first, as timm prefers them."""


@dataclass
class WeightFile:
    """An open file of tensors.

    Attributes:
        path: Of the file.
        tensors: By name; read from the disk when first asked for, where the file's kind allows.
        shapes: By name, known before anything is read.
        settings: The `config.json` beside it; empty where there is none.
        metadata: Texts in a safetensors header.
        notes: What was done on the way that the user may want to know.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    settings: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_one(path: Path, stack: ExitStack) -> WeightFile:
    """Open a file; `stack` closes it. Raises DamagedFileError for one that is no file of tensors, or holds code."""
    with parsing(path):
        if path.suffix == ".safetensors":
            return _open_safetensors(path, stack)
        if path.suffix == ".npz":
            return _open_npz(path, stack)
    return _open_torch(path)


def settings_beside(path: Path) -> dict[str, Any]:
    """The `config.json` beside a file."""
    beside = path.parent / "config.json"
    return read_json(beside) if beside.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """A description. Raises DamagedFileError for a file that is none, or too large for one."""
    size = path.stat().st_size
    if size > _MOST_JSON_BYTES:
        raise DamagedFileError(f"{path}: {size} bytes, at most {_MOST_JSON_BYTES} are a description; fetch it again")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise DamagedFileError(f"{path}: is not JSON ({reason(error)}); fetch it again") from error
    if not isinstance(values, dict):
        raise DamagedFileError(f"{path}: holds no description but {type(values).__name__}; fetch it again")
    return values


class Lazy(Mapping[str, Tensor]):
    """Tensors that are read when asked for; what then goes wrong is the file's fault."""

    def __init__(self, path: Path, readers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._path = path
        self._readers = readers

    def __getitem__(self, name: str) -> Tensor:
        reader = self._readers[name]
        with parsing(self._path):
            return reader()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """One line for whatever a parser stumbles over in a stranger's bytes; there is no list of what that may be."""
    try:
        yield
    except VitreousError:
        raise
    except Exception as error:
        raise DamagedFileError(
            f"{path}: cannot be read as {path.suffix or 'weights'} ({reason(error)}); if it was cut short or altered, "
            "fetch it again"
        ) from error


def reason(error: Exception) -> str:
    """What an error says, on one short line."""
    return shown(" ".join(str(error).split()), 200) or type(error).__name__


def _open_safetensors(path: Path, stack: ExitStack) -> WeightFile:
    # safe_open checks that the header's offsets fill the file exactly before anything is allocated.
    file = stack.enter_context(safe_open(path, framework="pt"))
    names = list(file.keys())
    readers = {name: partial(_clone, file, name) for name in names}
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return WeightFile(path, Lazy(path, readers), shapes, settings_beside(path), dict(file.metadata() or {}))


def _clone(file: Any, name: str) -> Tensor:
    # The file is memory-mapped: a model must not change with a file that is overwritten in place.
    return file.get_tensor(name).clone()


def _open_npz(path: Path, stack: ExitStack) -> WeightFile:
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = [info for info in archive.infolist() if not info.is_dir()]
    shapes, readers, sizes = {}, {}, []
    for info in members:
        name = info.filename.removesuffix(".npy")
        shape, dtype, there = _npy_header(archive, info)
        declared = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or declared != there or name in shapes:
            what = f"{there} bytes where its header says {declared}" if name not in shapes else "two arrays"
            what = "Python objects, which could be code" if dtype.hasobject else what
            raise DamagedFileError(f"{path}: {shown(name)} holds {what}; fetch it again")
        shapes[name] = shape
        sizes.append(declared)
        readers[name] = partial(_npy, archive, info)
    _check_unpacked(path, sizes)
    return WeightFile(path, Lazy(path, readers), shapes, settings_beside(path))


def _npy_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type, and bytes that follow the header."""
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        return tuple(shape), dtype, info.file_size - stream.tell()


def _npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    with archive.open(info) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read()  # to its end, where the checksum is compared
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # bfloat16, which numpy knows as two bytes of anything
        return torch.from_numpy(array.view(np.uint16).astype(np.int32) << 16).view(torch.float32).to(torch.bfloat16)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _open_torch(path: Path) -> WeightFile:
    try:
        zipped = _check_torch_archive(path)
        # weights_only refuses every pickled object but tensors and plain containers.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except VitreousError:
        raise
    except Exception as error:  # as in parsing: bytes that are no pickle may mean anything to its machine
        raise DamagedFileError(
            f"{path}: is cut short, or holds more than tensors, which could be code ({reason(error)}); "
            "save its state_dict() alone, best as .safetensors"
        ) from error
    found, notes = _state_dict(loaded)
    if not found:
        raise DamagedFileError(f"{path}: holds no tensors by name; give a file with a state_dict()")
    for name, tensor in found.items():
        if not _is_plain(tensor):
            raise DamagedFileError(
                f"{path}: {shown(name)} claims {tuple(tensor.shape)}, more than is stored; fetch it again"
            )
    _check_unpacked(path, (tensor.numel() * tensor.element_size() for tensor in found.values()))
    readers = {name: tensor.detach().clone for name, tensor in found.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    return WeightFile(path, Lazy(path, readers), shapes, settings_beside(path), notes=notes)


def _check_torch_archive(path: Path) -> bool:
    """Whether it is a zip archive, as torch tells it. Raises DamagedFileError for one that would unpack to more."""
    with path.open("rb") as stream:
        if stream.read(len(_TORCH_ZIP)) != _TORCH_ZIP:
            return False
    with zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise DamagedFileError(
            f"{path}: {listed(packed, 2)} are compressed, which torch.save never does; save it again"
        )
    return True


def _is_plain(tensor: Tensor) -> bool:
    """Whether every number of a tensor is stored, once: it is not sparse, quantised, expanded or without storage."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _check_unpacked(path: Path, sizes: Iterable[int]) -> None:
    """Raise DamagedFileError where tensors of so many bytes cannot have come from a file of this size."""
    declared, size = sum(sizes), path.stat().st_size
    if declared > _MOST_UNPACKED * size:
        raise DamagedFileError(f"{path}: unpacks from {size} bytes to {declared}, as no weights do; fetch it again")


def _state_dict(loaded: object, depth: int = 0) -> tuple[dict[str, Tensor], list[str]]:
    """The innermost dictionary of tensors, by the keys that training scripts use, and what was passed over."""
    if not isinstance(loaded, Mapping) or depth > _DEEPEST:
        return {}, []
    for key in _NESTED:
        found, notes = _state_dict(loaded.get(key), depth + 1)
        if found:
            return found, [f"took {key!r} of {listed(map(str, loaded))}", *notes]
    tensors = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    others = [str(name) for name in loaded if name not in tensors]
    return tensors, [f"left out {listed(others)}: no tensors"] if tensors and others else []
