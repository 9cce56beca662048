"""File of `torch.save` or `torch.jit.save` -> tensors by name, read when requested; no code in it is executed."""

import io
import math
import mmap
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitreous.errors import DamagedFileError
from vitreous.model.weights.reading.inert import StoredTensor, Stub, read_pickle
from vitreous.wording import printable, printable_list, printable_value

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""First pickle of a file that torch.save wrote before version 1.6."""
_LEGACY_VERSION = 1001
"""Second pickle of such a file; torch has never written another number."""
_ARCHIVE_VERSIONS = range(1, 11)
"""Versions of torch's archives; source: `caffe2/serialize/versions.h` of torch."""
_MAX_PICKLE_BYTES = 2**28
_COUNT_BYTES = 8
_MAX_NAME_CHARACTERS = 2**26


@dataclass
class Contents:
    """Tensors of an open file, and what else it has.

    Attributes:
        shapes: Shape of each tensor by name; parts of a name are joined by dots.
        readers: Function that reads each tensor.
        nbytes: Bytes that all tensors would need.
        objects: Class names of the outermost objects that are not plain values, by name.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    readers: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    nbytes: int = 0
    objects: dict[str, str] = field(default_factory=dict)


def open_archive(path: Path, stack: ExitStack) -> Contents:
    """Open a zip archive, to be closed by `stack`. Raises DamagedFileError if it is not one of torch."""
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        raise DamagedFileError(
            f"{path}: is a zip archive without weights ({printable_list(members, 3)}); extract the file of weights"
        )
    pickled = min(pickles, key=len)
    folder = pickled.removesuffix("data.pkl")
    read_first = {pickled, f"{folder}byteorder", f"{folder}version"}
    needed = (name for name in members if name in read_first or name.startswith(f"{folder}data/"))
    packed = [name for name in needed if members[name].compress_type != zipfile.ZIP_STORED]
    if packed:
        raise DamagedFileError(
            f"{path}: its members {printable_list(packed, 2)} are compressed, as torch.save never does; save it again"
        )
    if members[pickled].file_size > _MAX_PICKLE_BYTES:
        raise DamagedFileError(f"{path}: describes its tensors in {members[pickled].file_size:,} bytes; save it again")
    if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder").decode() != sys.byteorder:
        raise DamagedFileError(f"{path}: was written in another byte order; save it again as .safetensors")

    if f"{folder}version" in members:
        _check_version(path, int(archive.read(f"{folder}version")), _ARCHIVE_VERSIONS)

    def read(key: str) -> bytes:
        return archive.read(members[f"{folder}data/{key}"])

    return _contents(path, read_pickle(io.BytesIO(archive.read(pickled))), read)


def open_legacy(path: Path, stack: ExitStack) -> Contents:
    """Open a file of torch before version 1.6, or a bare pickle, to be closed by `stack`."""
    stream = stack.enter_context(path.open("rb"))
    data = stack.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    first = read_pickle(data)
    if first != _MAGIC_NUMBER:
        return _contents(path, first, lambda key: b"")  # a bare pickle, which has no storages
    _check_version(path, read_pickle(data), range(_LEGACY_VERSION, _LEGACY_VERSION + 1))
    system = read_pickle(data)
    if isinstance(system, dict) and system.get("little_endian", True) != (sys.byteorder == "little"):
        raise DamagedFileError(f"{path}: was written in another byte order; save it again as .safetensors")
    tree, keys = read_pickle(data), read_pickle(data)
    sizes = {item.storage.key: item.storage.dtype.itemsize for _, item in walk(tree) if isinstance(item, StoredTensor)}
    places, start = {}, data.tell()
    for key in map(str, keys):
        count = int.from_bytes(data[start : start + _COUNT_BYTES], "little")
        places[key] = slice(start + _COUNT_BYTES, start + _COUNT_BYTES + count * sizes.get(key, 1))
        start = places[key].stop
    if start > len(data):
        raise DamagedFileError(f"{path}: is cut short by {start - len(data):,} bytes; download it again")
    return _contents(path, tree, lambda key: data[places[key]])


def _check_version(path: Path, version: object, known: range) -> None:
    if version not in known:
        raise DamagedFileError(
            f"{path}: has version {printable_value(version)} of torch's format, which does not exist; download it again"
        )


def _contents(path: Path, tree: object, read: Callable[[str], bytes]) -> Contents:
    found = Contents()
    outermost: str | None = None
    last: dict[str, Tensor] = {}

    def storage(key: str) -> Tensor:
        """Read the bytes of a storage; keep them until another one is read, because tensors may share them."""
        if key not in last:
            last.clear()
            content = bytearray(read(key))
            last[key] = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        return last[key]

    for name, item in walk(tree):
        if isinstance(item, StoredTensor) and name:
            if name in found.shapes:
                raise DamagedFileError(f"{path}: has two tensors with the name {printable(name)}; save it again")
            found.shapes[name] = item.shape
            found.readers[name] = partial(_read, path, name, item, storage)
            found.nbytes += math.prod(item.shape) * item.dtype.itemsize
        elif isinstance(item, Stub) and (outermost is None or not name.startswith(outermost)):
            outermost = f"{name}." if name else ""
            found.objects[name] = item.name
    return found


def _read(path: Path, name: str, stored: StoredTensor, storage: Callable[[str], Tensor]) -> Tensor:
    """Read one tensor. Raises DamagedFileError unless the storage has a value of its own for each of its elements."""
    span, count, size = stored.storage, math.prod(stored.shape), stored.dtype.itemsize
    if count == 0:
        return torch.empty(stored.shape, dtype=stored.dtype)
    last = stored.offset + sum((length - 1) * step for length, step in zip(stored.shape, stored.stride, strict=True))
    start, stop = (bound * span.dtype.itemsize for bound in (span.start, span.start + span.count))
    if max(count, last + 1) * size > stop - start or stop > (content := storage(span.key)).numel():
        raise DamagedFileError(
            f"{path}: {printable(name)} has shape {stored.shape}, but fewer values are stored; download it again"
        )
    values = content[start : stop - (stop - start) % size].view(stored.dtype)
    return values.as_strided(stored.shape, stored.stride, stored.offset).clone(memory_format=torch.contiguous_format)


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of each tensor and stub in a tree of plain values; each container once.

    Raises:
        ValueError: The names together are so long that no real file has them.
    """
    seen: set[int] = set()
    todo, num_characters = [("", value)], 0
    while todo:
        path, item = todo.pop()
        if isinstance(item, StoredTensor | Stub):
            yield path, item
        children: Any = item.contents if isinstance(item, Stub) else item
        if isinstance(children, list | tuple):
            children = dict(enumerate(children))
        if not isinstance(children, dict) or id(item) in seen:
            continue
        seen.add(id(item))
        for key, child in reversed(children.items()):
            # A pickled module keeps its parts in these three dictionaries; they are not part of a tensor's name.
            step = "" if isinstance(item, Stub) and key in ("_parameters", "_buffers", "_modules") else key
            if isinstance(step, str | int) and isinstance(child, StoredTensor | Stub | dict | list | tuple):
                todo.append((".".join(filter(None, (path, str(step)))), child))
                num_characters += len(todo[-1][0])
                if num_characters > _MAX_NAME_CHARACTERS:
                    raise ValueError(f"its names have more than {_MAX_NAME_CHARACTERS:,} characters")
