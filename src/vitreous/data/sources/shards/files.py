"""A folder, a pattern or an address -> tar files that can be read at any byte, on this machine or elsewhere."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, cast

from vitreous.data.sources.source import as_text
from vitreous.data.sources.spelling import split_of
from vitreous.errors import DataError, DataNotFoundError, DecodeError, MissingDependencyError, nearest

MAX_SHARDS = 1_000_000
"""A pattern that stands for more is a slip."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z0-9+.-]+)*://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)
_SUFFIX = ".tar"
_PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_BUFFER_BYTES = 16 << 10
_BLOCK_BYTES = 4 << 20
_TAGS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created")


class ShardFile(ABC):
    """One tar file as it was when it was found.

    Attributes:
        address: Which file, the same from any working folder.
        name: Its last part, for people.
        size: In bytes.
        tag: Changes when the file does; empty: not known.
        folder: What its folder is called.
    """

    def __init__(self, address: str, size: int, tag: str) -> None:
        self.address, self.size, self.tag = address, size, tag
        parts = as_text(address).replace("\\", "/").split("/")
        self.name, self.folder = parts[-1], parts[-2] if len(parts) > 1 else ""

    @abstractmethod
    def open(self) -> BinaryIO:
        """To read it from its beginning. Raises OSError."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """These bytes. Raises DecodeError where the file is another by now, or cannot be read."""


class LocalShard(ShardFile):
    """A tar file on this machine, recognised by size and time of change."""

    def __init__(self, path: Path) -> None:
        status = path.stat()
        super().__init__(str(path.absolute()), status.st_size, str(status.st_mtime_ns))
        self.path = path

    def open(self) -> BinaryIO:
        """With a small buffer: headers are far apart, but for the smallest images."""
        return self.path.open("rb", buffering=_BUFFER_BYTES)

    def read(self, offset: int, size: int) -> bytes:
        """As in `ShardFile`."""
        try:
            with self.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if (status.st_size, str(status.st_mtime_ns)) != (self.size, self.tag):
                    raise DecodeError(f"{self.name}: has changed since it was opened")
                file.seek(offset)
                return _whole(file.read(size), size, self.name)
        except OSError as error:
            raise DecodeError(f"{self.name}: {error.strerror or error}") from error


class RemoteShard(ShardFile):
    """A tar file behind an fsspec address; a sample is one request for its bytes."""

    def __init__(self, files: Any, address: str, path: str) -> None:
        info = files.info(path)
        tag = next((str(info[key]) for key in _TAGS if info.get(key) is not None), "")
        super().__init__(address, int(info.get("size") or 0), tag)
        self._files, self._path = files, path

    def open(self) -> BinaryIO:
        """Read ahead in blocks: one request for many headers."""
        return cast(BinaryIO, self._files.open(self._path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead"))

    def read(self, offset: int, size: int) -> bytes:
        """As in `ShardFile`."""
        if size == 0:
            return b""
        try:
            content = self._files.cat_file(self._path, start=offset, end=offset + size)
        except Exception as error:  # each file system has errors of its own
            raise DecodeError(f"{self.name}: {_reason(error)}") from error
        if len(content) > size:
            raise DecodeError(f"{self.name}: its server gives whole files alone, no part of one")
        return _whole(content, size, self.name)


def is_address(name: str) -> bool:
    """Whether this is no path but an address such as `s3://bucket/train-{000..099}.tar`."""
    return bool(_ADDRESS.match(name)) and not name.startswith("hf://")


def is_shards(name_or_path: str | Path) -> bool:
    """Whether this is an address, is called like a tar file, or is a folder of tar files."""
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if is_address(name) or (name.casefold().endswith((_SUFFIX, *_PACKED_SUFFIXES)) and not path.is_dir()):
        return True
    try:
        return path.is_dir() and bool(_tars_in(path))
    except OSError:
        return False


def find_shards(name: str) -> list[ShardFile]:
    """The tar files that a name stands for, in the order of their names.

    Args:
        name: A folder of `*.tar`, or of `train/` `val/` `test/` with such; one tar; `train-{000..007}.tar` or
            `{train,val}-{0..3}.tar`; each of these as an fsspec address too.

    Returns:
        At least one.

    Raises:
        DataNotFoundError: One of them does not exist, or cannot be reached.
        DataError: A pattern without sense, or compressed tars.
        MissingDependencyError: What its kind of address needs is not installed.
    """
    if is_address(name):
        return _find_remote(name)
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            paths = _tars_in(path)
        else:
            paths = [path] if path.exists() else [Path(text) for text in expand_braces(str(path))]
        for one in paths:
            _check_packed(name, one.name)
            if not one.is_file():
                raise DataNotFoundError(f"data.source={name}: {_missing(one, len(paths))}")
        return [LocalShard(one) for one in paths]
    except DataNotFoundError:
        raise
    except OSError as error:
        raise DataNotFoundError(f"data.source={name}: cannot be read ({error.strerror or error}); check it") from error


def expand_braces(pattern: str) -> list[str]:
    """`a-{00..02}.tar` -> `a-00.tar`, `a-01.tar`, `a-02.tar`; `{x,y}` -> `x`, `y`; several braces: each with each.

    Raises:
        DataError: Braces without sense, or that stand for more than `MAX_SHARDS`.
    """
    pieces = _BRACES.split(pattern)
    choices: list[Sequence[str]] = []
    total = 1
    for number, piece in enumerate(pieces):
        found = _RANGE.fullmatch(piece) if number % 2 else None
        if found:
            first, last = int(found[1]), int(found[2])
            if last < first:
                raise DataError(f"data.source={pattern}: {{{piece}}} runs backwards; write {{{last}..{first}}}")
            total *= last - first + 1
            width = len(found[1]) if found[1].startswith("0") or len(found[1]) == len(found[2]) else 0
            # A range is spelled out only below, once it is known to be short.
            choices.append(_Numbers(first, last, width))
        elif number % 2 and "," in piece:
            choices.append(piece.split(","))
            total *= len(choices[-1])
        elif number % 2 or "{" in piece or "}" in piece:
            raise DataError(f"data.source={pattern}: braces without sense; write a range as {{000..007}}")
        else:
            choices.append([piece])
        if total > MAX_SHARDS:
            raise DataError(f"data.source={pattern}: stands for over {MAX_SHARDS:,} files; give a shorter range")
    return ["".join(parts) for parts in product(*choices)]


def read_beside(shard: ShardFile, name: str, limit_bytes: int) -> bytes | None:
    """A small file in the same folder; None where there is none, or it is too large."""
    try:
        if isinstance(shard, LocalShard):
            path = shard.path.parent / name
            return path.read_bytes() if path.is_file() and path.stat().st_size <= limit_bytes else None
        if isinstance(shard, RemoteShard):
            address = f"{shard._path.rpartition('/')[0]}/{name}"
            content = shard._files.cat_file(address, start=0, end=limit_bytes) if shard._files.isfile(address) else None
            return content if isinstance(content, bytes) else None
    except Exception:  # as in RemoteShard.read
        return None
    return None


class _Numbers(Sequence[str]):
    """First to last, padded with zeros."""

    def __init__(self, first: int, last: int, width: int) -> None:
        self._numbers, self._width = range(first, last + 1), width

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        return f"{self._numbers[index]:0{self._width}d}"

    def __iter__(self) -> Iterator[str]:
        return (f"{number:0{self._width}d}" for number in self._numbers)


def _tars_in(folder: Path) -> list[Path]:
    """The tars of a folder, or of its `train/` `val/` `test/`; none where it has other folders."""
    entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=lambda entry: entry.name)
    inner = [entry for entry in entries if entry.is_dir()]
    suffixes = (_SUFFIX, *_PACKED_SUFFIXES)
    tars = [e for e in entries if e.name.casefold().endswith(suffixes) and e.is_file()]
    if not all(split_of(entry.name) for entry in inner):
        return []
    below = [
        sorted(e for e in split.iterdir() if e.name.casefold().endswith(suffixes) and not e.name.startswith("."))
        for split in inner
    ]
    return [*tars, *(tar for found in below for tar in found)] if all(below) else []


def _find_remote(name: str) -> list[ShardFile]:
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(
            f"data.source={name}: needs fsspec, which is not installed; `pip install 'vitreous[remote]'`"
        ) from error
    _check_packed(name, name)
    is_folder = not name.casefold().endswith(_SUFFIX)
    addresses = [f"{name.rstrip('/')}/*{_SUFFIX}"] if is_folder else expand_braces(name)
    try:
        files, first = fsspec.core.url_to_fs(addresses[0])
        if is_folder:
            paths = sorted(map(str, files.glob(first)))
        else:
            paths = [str(files._strip_protocol(address)) for address in addresses]
        shards: list[ShardFile] = [RemoteShard(files, files.unstrip_protocol(path), path) for path in paths]
    except FileNotFoundError as error:
        raise DataNotFoundError(f"data.source={name}: {_reason(error)} does not exist; check the address") from error
    except ImportError as error:
        raise MissingDependencyError(
            f"data.source={name}: {_reason(error)}; https:// and s3:// come with `pip install 'vitreous[remote]'`"
        ) from error
    except Exception as error:  # each file system has errors of its own
        raise DataNotFoundError(f"data.source={name}: was not reached ({_reason(error)}); check the address") from error
    if not shards:
        raise DataNotFoundError(f"data.source={name}: holds no .tar file; check the address")
    return shards


def _check_packed(name: str, file: str) -> None:
    if file.casefold().endswith(_PACKED_SUFFIXES):
        raise DataError(
            f"data.source={name}: {file} is compressed, so no sample can be reached without all before it; "
            "unpack it once, e.g. with gunzip (images are compressed anyway)"
        )


def _missing(path: Path, num: int) -> str:
    parent = path.parent
    siblings = [entry.name for entry in parent.iterdir() if entry.is_file()] if parent.is_dir() else []
    near = nearest(path.name, siblings)
    of_all = f", one of {num:,}," if num > 1 else ""
    way_out = near if near.startswith("did you mean") else "check the path"
    return f"{path.name}{of_all} does not exist; {way_out}"


def _whole(content: bytes | None, size: int, name: str) -> bytes:
    if content is None or len(content) != size:
        raise DecodeError(f"{name}: ends too early")
    return content


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
