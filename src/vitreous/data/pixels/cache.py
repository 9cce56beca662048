"""Samples, a preprocessing -> their pixels in a file of this user's cache, decoded once for all runs.

A file's name is a hash of the samples' contents and of the preprocessing: a changed image is another file. A file is
complete or absent. Two runs that want the same at once do not both decode: the second waits for the first, and reads
what it wrote; where the first is killed, the second does the work.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray

from vitreous import atomic
from vitreous.data.decoding.decode import reason_of
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.file_locks import LockedFile, try_lock
from vitreous.data.pixels.pixel_file import PixelFile, PixelWriter, file_bytes
from vitreous.data.sources import Source
from vitreous.data.sources.official import cache_folder
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DamagedFileError, DecodeError, SaveError

SHARE_OF_FREE = 0.5
"""All files of the cache together take at most this share of what is free on the disk without them."""

AUTO = "auto"
"""The folder for pixels in this user's cache, or `$VITREOUS_CACHE`."""

DIGEST_BYTES = 16

_FORMAT = 1
_SUFFIX = ".pixels"
_STALE_S = 24 * 3600.0


@dataclass(frozen=True)
class CacheUse:
    """What the cache did for a store.

    Attributes:
        folder: Where it keeps its files.
        num_bytes: Of the file; 0 where there is none.
        is_new: Whether the file was made now, not by an earlier run.
        reason: Why there is no file; else empty.
    """

    folder: str
    num_bytes: int = 0
    is_new: bool = False
    reason: str = ""


def digest_of(content: bytes) -> bytes:
    """The hash that stands for a sample's content, 16 bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def open_cached(
    source: Source,
    indices: NDArray[np.int64],
    preprocess: Preprocess,
    digests: NDArray[np.uint8],
    *,
    folder: str = AUTO,
    limit_bytes: int | None = None,
    progress: Progress | None = None,
) -> tuple[PixelFile | None, CacheUse]:
    """The pixels of chosen samples, from the cache or decoded into it now.

    Args:
        source: Where the samples come from.
        indices: Which of them, at least one; row `i` of the file is sample `indices[i]`.
        preprocess: Gives the pixels.
        digests: `digest_of` the content of each chosen sample, `[n, 16]`.
        folder: Where the files are kept; `auto`: in this user's cache.
        limit_bytes: The most that the cache may take on the disk, all files together; None: `SHARE_OF_FREE`.
        progress: Called with (done, total) while images are decoded.

    Returns:
        The file, and what was done; None and the reason where there can be no file: too large, a disk that is full or
        not to be written, files that changed since they were hashed.
    """
    shape = (len(indices), preprocess.in_chans, *preprocess.img_size)
    place = _place(folder)
    key = _key(digests, preprocess)
    path = place / f"{key}{_SUFFIX}"

    def fill(file: BinaryIO) -> None:
        writer = PixelWriter(file, shape)
        writer.finish(key, _decode_all(source, indices, preprocess, digests, writer, progress))

    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with LockedFile(place / f".{key}.lock") as lock:
            found = _open(path, key, shape)
            if found is not None:
                if progress is not None:
                    progress(len(indices), len(indices))
                return found, CacheUse(str(place), found.num_bytes)
            _remove_stale(place, key if lock.is_locked else None)
            reason = _make_room(place, file_bytes(shape), limit_bytes)
            if reason:
                return None, CacheUse(str(place), reason=reason)
            _write(path, fill)
            found = PixelFile(path, key, shape)
            return found, CacheUse(str(place), found.num_bytes, is_new=True)
    except DamagedFileError as error:
        return None, CacheUse(str(place), reason=str(error))
    except (SaveError, OSError) as error:
        cause = error.__cause__ if isinstance(error, SaveError) else error
        return None, CacheUse(str(place), reason=f"{getattr(cause, 'strerror', None) or cause}")


def _place(folder: str) -> Path:
    if folder != AUTO:
        return Path(folder).expanduser().absolute()
    given = os.environ.get("VITREOUS_CACHE")
    return Path(given).expanduser().absolute() if given else cache_folder() / "pixels"


def _write(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    def fill_path(temporary: Path) -> None:
        with temporary.open("wb") as file:
            fill(file)

    atomic.write(path, fill_path)


def _key(digests: NDArray[np.uint8], preprocess: Preprocess) -> str:
    """The samples' contents in their order, what is made of them, and what decodes them."""
    made = {
        "format": _FORMAT,
        "pillow": PIL.__version__,
        "preprocess": [preprocess.img_size, preprocess.in_chans, preprocess.fit],
    }
    digest = hashlib.blake2b(json.dumps(made).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(digests).tobytes())
    return digest.hexdigest()


def _decode_all(
    source: Source,
    indices: NDArray[np.int64],
    preprocess: Preprocess,
    digests: NDArray[np.uint8],
    writer: PixelWriter,
    progress: Progress | None,
) -> dict[int, str]:
    """Write every sample's pixels; returns the rows that have none, and why."""
    damaged: dict[int, str] = {}

    def decode_one(row: int) -> None:
        index = int(indices[row])
        where = source.describe(index)
        try:
            encoded = source.encoded(index)
            # A file's bytes are both: they are read once, so that what was hashed is what is decoded.
            content = encoded if isinstance(encoded, bytes) else source.content(index)
        except DecodeError as error:  # a disk that fails today says nothing of tomorrow
            raise DamagedFileError(f"{error}; run again when it can be read") from error
        if digest_of(content) != digests[row].tobytes():
            raise DamagedFileError(f"{where}: changed since it was read; run again when it changes no more")
        try:
            writer.put(row, preprocess.pixels(encoded, where=where).numpy())
        except DecodeError as error:
            damaged[row] = reason_of(error, where)

    map_in_order(decode_one, len(indices), progress)
    return dict(sorted(damaged.items()))


def _open(path: Path, key: str, shape: tuple[int, ...]) -> PixelFile | None:
    """The file, and the note that it was used now; None where it is not there, or damaged: then it is removed."""
    try:
        found = PixelFile(path, key, shape)
    except FileNotFoundError:
        return None
    except DamagedFileError:
        path.unlink(missing_ok=True)
        return None
    with suppress(OSError):
        os.utime(path)
    return found


def _remove_stale(folder: Path, own_key: str | None) -> None:
    """Remove what killed runs left half written: temporaries whose key nobody holds; without locks, those a day old."""
    for temporary in folder.glob(f".*{_SUFFIX}.*.tmp"):
        with suppress(OSError):
            key = temporary.name[1:].partition(".")[0]
            if key == own_key:
                temporary.unlink()
                continue
            lock_path = folder / f".{key}.lock"
            with lock_path.open("ab") as lock:
                got = try_lock(lock)
                is_old = time.time() - temporary.stat().st_mtime > _STALE_S
                if got or (got is None and is_old):
                    temporary.unlink()


def _make_room(folder: Path, needed: int, limit_bytes: int | None) -> str:
    """Remove files that were unused for longest, and are not in use now, until a new one fits; else why it does not."""
    files = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob(f"*{_SUFFIX}"))
    used = sum(size for _, size, _ in files) + sum(p.stat().st_size for p in folder.glob(f".*{_SUFFIX}.*.tmp"))
    free = shutil.disk_usage(folder).free
    limit = int(SHARE_OF_FREE * (free + used)) if limit_bytes is None else limit_bytes
    if needed > limit:
        return f"{needed:,} bytes of decoded images are over the cache's limit of {limit:,}"
    for _, size, path in files:
        if used + needed <= limit and needed <= free:
            break
        with suppress(OSError), path.open("rb") as file:
            if try_lock(file) is not False:
                path.unlink()
                used, free = used - size, free + size
    if used + needed > limit:
        return f"{used:,} bytes are in use by other runs, and {needed:,} more are over the limit of {limit:,}"
    if needed > free:
        return f"{needed:,} bytes do not fit into the {free:,} that are free"
    return ""
