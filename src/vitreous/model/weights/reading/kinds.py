"""Weight file of any type -> tensors by name, and whatever describes them; no code in the file is ever executed."""

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitreous.errors import DamagedFileError
from vitreous.model.weights.reading.torch_file import open_archive, open_legacy
from vitreous.tensor_file import open_tensor_file, parsing
from vitreous.wording import printable, printable_error

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
SETTINGS = ("config.json", "open_clip_config.json")
"""Files that describe the weights in the same folder, in order of preference."""
_WAY_OUT = "if it is cut short or altered, download it again"
_MAX_JSON_BYTES = 8 * 2**20
_MAX_UNPACK_RATIO = 100
"""Largest accepted ratio of unpacked bytes to file size: real weights hardly compress, so more is a zip bomb."""
_HEAD_BYTES = 512
_ZIP_MAGIC = b"PK\x03\x04"
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a pointer of git-lfs, not the file itself; run `git lfs pull`"),
    (b"<", "is a web page (HTML or XML), not weights; download the file again with its direct link"),
    (b"{", "is JSON text, not weights; give the file of weights that belongs to it"),
    (b"\x89HDF", "is an HDF5 file, as Keras writes it, which is not supported; save the weights as .safetensors"),
    (b"GGUF", "is a GGUF file, which is not supported; give the .safetensors or PyTorch file of the model"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it and give the file inside"),
    (b"\x89PNG", "is a PNG image, not weights; give a file of weights"),
    (b"\xff\xd8\xff", "is a JPEG image, not weights; give a file of weights"),
)
"""First bytes of files that are often saved or passed in place of weights, and what to say."""


@dataclass
class WeightFile:
    """An open weights file.

    Shapes are known before any tensor is read; `readers` read one tensor each. `metadata` has the strings in a
    safetensors header, and `objects` the class names of objects that were not built, by name.
    """

    path: Path
    readers: Mapping[str, Callable[[], Tensor]]
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)

    def read(self, name: str) -> Tensor:
        """Read one tensor from disk. Raises DamagedFileError if that fails."""
        reader = self.readers[name]
        with parsing(self.path, _WAY_OUT):
            return reader()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The `config.json` in the folder of the file, or what OpenCLIP has instead; empty if there is none."""
        found = next((self.path.parent / name for name in SETTINGS if (self.path.parent / name).is_file()), None)
        return {} if found is None else read_json(found)


def open_one(path: Path, stack: ExitStack) -> WeightFile:
    """Open one file, to be closed by `stack`; its content decides its type. Raises DamagedFileError without tensors."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise DamagedFileError(f"{path}: is empty; download it again")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, fault in _FOREIGN:
        if text.startswith(magic):
            raise DamagedFileError(f"{path}: {fault}")
    is_zip = head.startswith(_ZIP_MAGIC)
    if head[8:9] == b"{" or (path.suffix == ".safetensors" and not is_zip):
        return _open_safetensors(path, stack)
    if path.suffix == ".npz" or (is_zip and _holds_arrays(path)):
        with parsing(path, _WAY_OUT):
            return _open_npz(path, stack)
    return _open_torch(path, stack, is_zip)


def _holds_arrays(path: Path) -> bool:
    with parsing(path, _WAY_OUT), zipfile.ZipFile(path) as archive:
        return any(name.endswith(".npy") for name in archive.namelist())


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


def _open_safetensors(path: Path, stack: ExitStack) -> WeightFile:
    file = stack.enter_context(open_tensor_file(path, way_out=_WAY_OUT))
    return WeightFile(path, {name: partial(file.read, name) for name in file.names}, file.shapes(), file.metadata)


def _open_npz(path: Path, stack: ExitStack) -> WeightFile:
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = [info for info in archive.infolist() if not info.is_dir()]
    _check_unpacked(path, sum(info.file_size for info in members))
    shapes, readers = {}, {}
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
        readers[name] = partial(_read_npy, archive, info)
    return WeightFile(path, readers, shapes)


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


def _open_torch(path: Path, stack: ExitStack, is_archive: bool) -> WeightFile:
    with parsing(path, _WAY_OUT):
        found = open_archive(path, stack) if is_archive else open_legacy(path, stack)
    if not found.shapes:
        raise DamagedFileError(f"{path}: holds no tensors by name; give a file with a state_dict()")
    _check_unpacked(path, found.nbytes)
    return WeightFile(path, found.readers, found.shapes, objects=found.objects)


def _check_unpacked(path: Path, declared: int) -> None:
    """Raise DamagedFileError if this number of bytes cannot come from a file of this size."""
    size = path.stat().st_size
    if declared > _MAX_UNPACK_RATIO * size:
        raise DamagedFileError(
            f"{path}: would unpack from {size:,} bytes to {declared:,}, which real weights never do; download it again"
        )
