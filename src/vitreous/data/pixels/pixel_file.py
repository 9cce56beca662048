"""Rows of pixels <-> one file: rows of equal size, a checksum for each, and a footer that describes them.

Reading a file executes nothing from it. Sizes, key and checksums are verified before any pixel is used.

    rows        num_rows × row_bytes
    checksums   num_rows × uint32, little-endian: CRC-32 of each row
    footer      JSON: key, shape, damaged rows
    digest      16 bytes: BLAKE2b of checksums and footer
    length      uint64, little-endian: number of bytes of the footer
    magic       8 bytes
"""

import json
import mmap
import threading
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vitreous.data.pixels.digest import DIGEST_BYTES, digest_of
from vitreous.errors import DamagedFileError
from vitreous.file_locks import try_lock

_MAGIC = b"vitpix\x00\x01"
_TAIL_BYTES = DIGEST_BYTES + 8 + len(_MAGIC)


class PixelWriter:
    """A file that is filled row by row, in any order and from several threads; it is complete only after `finish`.

    The file is empty, and open for writing; the shape is `[num_rows, channels, height, width]`.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...]) -> None:
        self._file = file
        self._shape = shape
        self._row_bytes = int(np.prod(shape[1:]))
        # Rows that are never written read as zeros.
        self._checksums = np.full(shape[0], zlib.crc32(bytes(self._row_bytes)), dtype="<u4")
        self._lock = threading.Lock()

    def put(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Write one row. Raises OSError if the disk is full; a write to a memory map would kill the process instead."""
        content = np.ascontiguousarray(pixels).tobytes()
        self._checksums[row] = zlib.crc32(content)
        with self._lock:
            self._file.seek(row * self._row_bytes)
            self._file.write(content)

    def finish(self, key: str, damaged: Mapping[int, str]) -> None:
        """Write checksums and footer: the key that reading requires, and the reason for each row without an image."""
        footer = json.dumps({"key": key, "shape": self._shape, "damaged": list(damaged.items())}).encode()
        checked = self._checksums.tobytes() + footer
        self._file.seek(self._shape[0] * self._row_bytes)
        self._file.write(checked + digest_of(checked) + len(footer).to_bytes(8, "little") + _MAGIC)


class PixelFile:
    """A complete file, memory-mapped: the system keeps frequently used pages in memory, and frees them when needed.

    It must have been written with this key, and with rows of this shape, `[num_rows, channels, height, width]`.
    `damaged` has the rows without an image, and the reason for each.

    Raises:
        DamagedFileError: The file is truncated or altered, or has another key or shape.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...]) -> None:
        self.path = path
        with path.open("rb") as file:
            # The memory map keeps the file open and therefore locked, so that no process deletes it to make room.
            try_lock(file, shared=True)
            self._checksums, footer = _read_footer(file, path, shape)
            if footer.get("key") != key or footer.get("shape") != list(shape):
                raise DamagedFileError(f"{path}: holds other images; delete it")
            self.damaged = _damaged_rows(footer.get("damaged"), path, shape[0])
            self.num_bytes = file.seek(0, 2)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._rows = np.frombuffer(self._map, dtype=np.uint8, count=int(np.prod(shape))).reshape(shape)
        self._is_checked = np.zeros(shape[0], dtype=np.bool_)

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], list[int]]:
        """Copy rows; the checksum of a row is verified when it is first read.

        Reading a page that another program has cut off would end the process, so the size of the file is checked each
        time. Only a cut between this check and the copy, microseconds later, is not noticed. Return pixels, `[n,
        channels, height, width]`, and the positions in `rows` of those whose checksum is wrong.
        """
        num_whole = self._map.size() // self._rows[0].size
        if num_whole >= len(self._rows):
            pixels = self._rows[rows]
        else:
            self._is_checked[:] = False
            pixels = np.zeros((len(rows), *self._rows.shape[1:]), dtype=np.uint8)
            pixels[rows < num_whole] = self._rows[rows[rows < num_whole]]
        wrong = []
        for position in np.flatnonzero(~self._is_checked[rows]).tolist():
            row = int(rows[position])
            if zlib.crc32(pixels[position]) == int(self._checksums[row]):
                self._is_checked[row] = True
            else:
                wrong.append(position)
        return pixels, wrong

    def discard(self) -> None:
        """Delete the file, so that the next run writes a new one; what is mapped stays readable."""
        with suppress(OSError):
            self.path.unlink()


def file_bytes(shape: tuple[int, ...]) -> int:
    """Return the approximate size of a file with rows of this shape."""
    return int(np.prod(shape)) + 4 * shape[0] + 4096


def _read_footer(file: BinaryIO, path: Path, shape: tuple[int, ...]) -> tuple[NDArray[np.uint32], dict[str, Any]]:
    """Return the checksums of the rows and the footer, after verifying both."""
    rows_bytes, checksums_bytes = int(np.prod(shape)), 4 * shape[0]
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    length = int.from_bytes(tail[DIGEST_BYTES : DIGEST_BYTES + 8], "little")
    expected = rows_bytes + checksums_bytes + length + _TAIL_BYTES
    if not tail.endswith(_MAGIC) or size != expected:
        raise DamagedFileError(
            f"{path}: must be a complete file of {list(shape)} pixels, but has {size:,} bytes; delete it"
        )
    file.seek(rows_bytes)
    checked = file.read(checksums_bytes + length)
    if digest_of(checked) != tail[:DIGEST_BYTES]:
        raise DamagedFileError(f"{path}: its footer was altered; delete it")
    try:
        footer = json.loads(checked[checksums_bytes:])
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: its footer is not JSON; delete it") from error
    return np.frombuffer(checked, dtype="<u4", count=shape[0]), footer if isinstance(footer, dict) else {}


def _damaged_rows(found: object, path: Path, num_rows: int) -> dict[int, str]:
    damaged: dict[int, str] = {}
    for pair in found if isinstance(found, list) else [None]:
        match pair:
            case [int(row), str(reason)] if 0 <= row < num_rows:
                damaged[row] = reason
            case _:
                raise DamagedFileError(f"{path}: its list of damaged images is invalid; delete it")
    return damaged
