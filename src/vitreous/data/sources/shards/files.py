"""A folder, a pattern or an address -> tar files that can be read at any byte, local or remote."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, cast

from vitreous.data.sources.shards.tar_members import refuse_compressed
from vitreous.data.sources.source import as_text, first_line
from vitreous.data.sources.spelling import did_you_mean, split_of
from vitreous.errors import (
    DataError,
    DataNotFoundError,
    DecodeError,
    MissingDependencyError,
    VitreousError,
    optional_module,
)
from vitreous.paths import expanded

MAX_SHARDS = 1_000_000
"""A pattern that stands for more files is rejected as a typo."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z0-9+.-]+)*://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)
_SUFFIX = ".tar"
_COMPRESSED_SUFFIXES = {
    ".tar.gz": "gzip", ".tgz": "gzip", ".tar.bz2": "bzip2", ".tbz2": "bzip2", ".tar.xz": "xz", ".txz": "xz",
    ".tar.zst": "zstd",
}  # fmt: skip
_SUFFIXES = (_SUFFIX, *_COMPRESSED_SUFFIXES)
_BUFFER_BYTES = 16 << 10
_BLOCK_BYTES = 4 << 20
_TAGS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created")


class ShardFile(ABC):
    """A tar file, with its size and tag at the time it was found.

    The address is an absolute path or that of a remote file; `name` is its last part, for messages. `tag` changes when
    the file does; it is empty if the file system has none. `folder` is the name of the file's folder.
    """

    def __init__(self, address: str, size: int, tag: str) -> None:
        self.address, self.size, self.tag = address, size, tag
        parts = as_text(address).replace("\\", "/").split("/")
        self.name, self.folder = parts[-1], parts[-2] if len(parts) > 1 else ""

    @abstractmethod
    def open(self) -> BinaryIO:
        """Open the file at its beginning. Raises OSError if that fails."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on. Raises DecodeError if the file changed or cannot be read."""


class LocalShard(ShardFile):
    """A tar file on this machine; its size and modification time show whether it changed."""

    def __init__(self, path: Path) -> None:
        status = path.stat()
        super().__init__(str(path.absolute()), status.st_size, str(status.st_mtime_ns))
        self.path = path

    def open(self) -> BinaryIO:
        """Open the file with a small buffer, because headers are far apart unless images are tiny."""
        return self.path.open("rb", buffering=_BUFFER_BYTES)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on. Raises DecodeError if the file changed or cannot be read."""
        try:
            with self.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if (status.st_size, str(status.st_mtime_ns)) != (self.size, self.tag):
                    raise DecodeError(f"{self.name}: has changed since it was opened")
                file.seek(offset)
                return _complete(file.read(size), size, self.name)
        except OSError as error:
            raise DecodeError(f"{self.name}: {error.strerror or error}") from error


class RemoteShard(ShardFile):
    """A tar file at an fsspec address; reading a sample requests only its bytes."""

    def __init__(self, files: Any, address: str, path: str) -> None:
        info = files.info(path)
        tag = next((str(info[key]) for key in _TAGS if info.get(key) is not None), "")
        super().__init__(address, int(info.get("size") or 0), tag)
        self._files, self._path = files, path

    def open(self) -> BinaryIO:
        """Open the file with read-ahead in large blocks, so that one request returns many headers."""
        return cast(BinaryIO, self._files.open(self._path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead"))

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on. Raises DecodeError if the file changed or cannot be read."""
        if size == 0:
            return b""
        try:
            content = self._files.cat_file(self._path, start=offset, end=offset + size)
        except Exception as error:  # each file system raises errors of its own types
            raise DecodeError(f"{self.name}: {first_line(error)}") from error
        if len(content) > size:
            raise DecodeError(f"{self.name}: the server returns the whole file instead of the requested bytes")
        return _complete(content, size, self.name)


def is_address(name: str) -> bool:
    """Return True if a name is not a path but an address such as `s3://bucket/train-{000..099}.tar`."""
    return bool(_ADDRESS.match(name)) and not name.startswith("hf://")


def is_shards(name_or_path: str | Path) -> bool:
    """Return True for an address, for the name of a tar file, and for a folder of tar files."""
    name, path = str(name_or_path), expanded(name_or_path)
    if is_address(name) or (name.casefold().endswith(_SUFFIXES) and not path.is_dir()):
        return True
    try:
        return path.is_dir() and bool(_tars_in(path))
    except OSError:
        return False


def find_shards(name: str) -> list[ShardFile]:
    """Find the tar files that a name means.

    Args:
        name: A folder of `*.tar`, or of `train/` `val/` `test/` that hold them; a tar file; a pattern such as
            `train-{000..007}.tar` or `{train,val}-{0..3}.tar`; or an fsspec address of one of these.

    Returns:
        At least one file, in the order of the pattern or sorted by name.

    Raises:
        DataNotFoundError: A file does not exist or cannot be reached.
        DataError: The pattern is invalid, or a tar file is compressed.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    if is_address(name):
        return _find_remote(name)
    path = expanded(name)
    try:
        if path.is_dir():
            paths = _tars_in(path)
        else:
            paths = [path] if path.exists() else [Path(text) for text in expand_braces(str(path))]
        for tar in paths:
            _check_suffix(name, tar.name)
            if not tar.is_file():
                of_all = f" (one of {len(paths):,} files)" if len(paths) > 1 else ""
                siblings = [entry.name for entry in tar.parent.iterdir()] if tar.parent.is_dir() else []
                way_out = did_you_mean(tar.name, siblings, otherwise="check the path")
                raise DataNotFoundError(f"data.source={name}: {tar.name}{of_all} does not exist; {way_out}")
        return [LocalShard(tar) for tar in paths]
    except DataNotFoundError:
        raise
    except OSError as error:
        raise DataNotFoundError(
            f"data.source={name}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from error


def expand_braces(pattern: str) -> list[str]:
    """Expand the braces of a pattern as a shell does.

    `a-{00..02}.tar` becomes `a-00.tar`, `a-01.tar`, `a-02.tar`, and `{x,y}` becomes `x`, `y`; several braces are
    combined in all ways.

    Raises:
        DataError: Braces hold neither a range nor a list, or the pattern stands for more than `MAX_SHARDS` files.
    """
    choices: list[list[str]] = []
    total = 1
    for number, piece in enumerate(_BRACES.split(pattern)):
        is_braced = number % 2 == 1
        found = _RANGE.fullmatch(piece) if is_braced else None
        first, last = map(int, found.groups()) if found else (0, 0)
        if last < first:
            raise DataError(f"data.source={pattern}: {{{piece}}} runs backwards; write {{{last}..{first}}}")
        if not found and ("{" in piece or "}" in piece or (is_braced and "," not in piece)):
            raise DataError(
                f"data.source={pattern}: braces must hold a range or a list; write e.g. {{000..007}} or {{train,val}}"
            )
        total *= last - first + 1 if found else piece.count(",") + 1 if is_braced else 1
        if total > MAX_SHARDS:  # checked before the range is expanded
            raise DataError(f"data.source={pattern}: stands for over {MAX_SHARDS:,} files; use a shorter range")
        if found:
            width = len(found[1]) if found[1].startswith("0") or len(found[1]) == len(found[2]) else 0
            choices.append([f"{value:0{width}d}" for value in range(first, last + 1)])
        else:
            choices.append(piece.split(",") if is_braced else [piece])
    return ["".join(parts) for parts in product(*choices)]


def read_neighbor(shard: ShardFile, name: str, limit_bytes: int) -> bytes | None:
    """Read a small file in the folder of a shard; None if it does not exist, is too large or cannot be read."""
    try:
        if isinstance(shard, LocalShard):
            path = shard.path.parent / name
            return path.read_bytes() if path.is_file() and path.stat().st_size <= limit_bytes else None
        if isinstance(shard, RemoteShard):
            address = f"{shard._path.rpartition('/')[0]}/{name}"
            content = shard._files.cat_file(address, start=0, end=limit_bytes) if shard._files.isfile(address) else None
            return content if isinstance(content, bytes) else None
    except Exception:  # each file system raises errors of its own types
        return None
    return None


def _tars_in(folder: Path) -> list[Path]:
    """Return the tar files of a folder and of its split folders; none if it has other folders."""
    entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=lambda entry: entry.name)
    splits = [entry for entry in entries if entry.is_dir()]
    if not all(split_of(split.name) for split in splits):
        return []
    tars = [e for e in entries if e.name.casefold().endswith(_SUFFIXES) and e.is_file()]
    for split in splits:
        inner = [e for e in split.iterdir() if e.name.casefold().endswith(_SUFFIXES) and not e.name.startswith(".")]
        if not inner:
            return []
        tars += sorted(inner)
    return tars


def _find_remote(name: str) -> list[ShardFile]:
    _check_suffix(name, name)
    is_folder = not name.casefold().endswith(_SUFFIX)
    addresses = [f"{name.rstrip('/')}/*{_SUFFIX}"] if is_folder else expand_braces(name)
    with reaching(name):
        files, first = import_fsspec(name).core.url_to_fs(addresses[0])
        if is_folder:
            paths = sorted(map(str, files.glob(first))) or _tars_of_splits(files, first)
        else:
            paths = [str(files._strip_protocol(address)) for address in addresses]
        shards: list[ShardFile] = [RemoteShard(files, files.unstrip_protocol(path), path) for path in paths]
    if not shards:
        raise DataNotFoundError(f"data.source={name}: holds no .tar file; check the address")
    return shards


def _tars_of_splits(files: Any, pattern: str) -> list[str]:
    """Return the tar files in the split folders of a remote folder; the pattern is that of tar files in it."""
    folder, _, name = pattern.rpartition("/")
    return sorted(path for path in map(str, files.glob(f"{folder}/*/{name}")) if split_of(path.split("/")[-2]))


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Context manager in which errors of any file system become ours.

    Raises:
        DataNotFoundError: A file does not exist or cannot be reached.
        MissingDependencyError: The package for this kind of address is not installed.
    """
    try:
        yield
    except VitreousError:
        raise
    except FileNotFoundError as error:
        missing = error.filename or first_line(error)
        raise DataNotFoundError(f"data.source={address}: {missing} does not exist; check the address") from error
    except ImportError as error:
        raise MissingDependencyError(
            f"data.source={address}: {first_line(error)}; for https:// and s3:// run `pip install 'vitreous[remote]'`"
        ) from error
    except Exception as error:  # each file system raises errors of its own types
        raise DataNotFoundError(
            f"data.source={address}: could not be reached ({first_line(error)}); check the address"
        ) from error


def import_fsspec(address: str) -> Any:
    """Return the module fsspec. Raises MissingDependencyError if it is not installed."""
    return optional_module("fsspec", f"data.source={address}", "run `pip install 'vitreous[remote]'`")


def _check_suffix(name: str, file: str) -> None:
    """Raise DataError if a file is compressed, as its suffix says."""
    for suffix, compression in _COMPRESSED_SUFFIXES.items():
        if file.casefold().endswith(suffix):
            refuse_compressed(f"data.source={name}: {file}", compression)


def _complete(content: bytes | None, size: int, name: str) -> bytes:
    if content is None or len(content) != size:
        raise DecodeError(f"{name}: ends within this image")
    return content
