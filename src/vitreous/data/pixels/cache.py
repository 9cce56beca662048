"""Samples, preprocessing -> their pixels in a file of this user's cache, decoded once for all runs.

The name of a file is a hash of the samples' contents and the preprocessing, so a changed image leads to another file.
A file is complete or absent. If two runs need the same file at once, the second waits for the first and reads what it
wrote; if the first is killed, the second does the work.
"""

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from vitreous import atomic
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.decode_samples import decode_samples
from vitreous.data.pixels.digest import DIGEST_BYTES
from vitreous.data.pixels.pixel_file import PixelFile, PixelWriter, file_bytes
from vitreous.data.sources import Source
from vitreous.data.workers import Progress
from vitreous.errors import DamagedFileError, SaveError
from vitreous.file_locks import locked_file, try_lock
from vitreous.paths import cache_folder, expanded

SHARE_OF_FREE = 0.5
"""Largest share of the free disk space that all cache files together may use, counting their own space as free."""

AUTO = "auto"
"""The folder setting that means `$VITREOUS_CACHE` if set, else this user's cache folder."""

_FORMAT = 1
_SUFFIX = ".pixels"
_STALE_S = 24 * 3600.0


@dataclass(frozen=True)
class CacheUse:
    """How a store used the cache.

    `num_bytes` is the size of the file, which this run wrote if it `is_new`; the reason is why there is none.
    """

    folder: str
    num_bytes: int = 0
    is_new: bool = False
    reason: str = ""


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
    """Open the cached pixels of samples; decode the samples into a new cache file if there is none.

    Row `i` of the file is sample `indices[i]`, of which there is at least one; `digests` are `digest_of` their
    contents, `[n, 16]`. The folder `auto` is that of this user. All cache files together take at most `limit_bytes`, or
    for None `SHARE_OF_FREE` of the disk.

    Returns:
        The file, and how it was obtained. The file is None if it would be too large, the disk is full or read-only, or
        samples have changed since they were hashed; the reason is then in the second value.
    """
    shape = (len(indices), preprocess.in_chans, *preprocess.img_size)
    cache = _cache_path(folder)
    key = _key(digests, preprocess)
    path = cache / f"{key}{_SUFFIX}"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            writer = PixelWriter(file, shape)
            damaged = decode_samples(source, indices, preprocess, writer.put, digests=digests, progress=progress)
            writer.finish(key, damaged)

    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked_file(cache / f".{key}.lock") as is_locked:
            found = _open(path, key, shape)
            if found is not None:
                if progress is not None:
                    progress(len(indices), len(indices))
                return found, CacheUse(str(cache), found.num_bytes)
            _remove_stale(cache, key if is_locked else None)
            reason = _make_room(cache, file_bytes(shape), limit_bytes)
            if reason:
                return None, CacheUse(str(cache), reason=reason)
            atomic.write(path, write)
            found = PixelFile(path, key, shape)
            return found, CacheUse(str(cache), found.num_bytes, is_new=True)
    except DamagedFileError as error:
        return None, CacheUse(str(cache), reason=str(error))
    except (SaveError, OSError) as error:
        cause = error.__cause__ if isinstance(error, SaveError) else error
        return None, CacheUse(str(cache), reason=f"{getattr(cause, 'strerror', None) or cause}")


def _cache_path(folder: str) -> Path:
    if folder != AUTO:
        return expanded(folder).absolute()
    given = os.environ.get("VITREOUS_CACHE")
    return expanded(given).absolute() if given else cache_folder() / "pixels"


def _key(digests: NDArray[np.uint8], preprocess: Preprocess) -> str:
    """Return a hash of what determines the pixels: the samples' contents in order, the preprocessing, the decoder."""
    settings = {
        "format": _FORMAT,
        "pillow": PIL.__version__,
        "preprocess": [preprocess.img_size, preprocess.in_chans, preprocess.fit, *(preprocess.value_range or ())],
    }
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(digests).tobytes())
    return digest.hexdigest()


def _open(path: Path, key: str, shape: tuple[int, ...]) -> PixelFile | None:
    """Open a file and mark it as used now; return None if it does not exist, or is damaged and was deleted."""
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
    """Delete unfinished files of killed runs: those whose key no process has locked or, without locks, after a day."""
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
    """Delete unused files, the oldest first, until a new one fits; return why it does not fit, or an empty string."""
    files = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob(f"*{_SUFFIX}"))
    used = sum(size for _, size, _ in files) + sum(p.stat().st_size for p in folder.glob(f".*{_SUFFIX}.*.tmp"))
    free = shutil.disk_usage(folder).free
    limit = int(SHARE_OF_FREE * (free + used)) if limit_bytes is None else limit_bytes
    if needed > limit:
        return f"{needed:,} bytes of decoded images are over the cache's limit of {limit:,} bytes"
    for _, size, path in files:
        if used + needed <= limit and needed <= free:
            break
        with suppress(OSError), path.open("rb") as file:
            if try_lock(file) is not False:
                path.unlink()
                used, free = used - size, free + size
    if used + needed > limit:
        return f"{used:,} bytes are in use by other runs, and {needed:,} more are over the limit of {limit:,} bytes"
    if needed > free:
        return f"{needed:,} bytes do not fit into {free:,} bytes of free disk space"
    return ""
