"""Rows of pixels <-> one file: rows of equal size, a checksum for each, and a footer that says what they are.

Nothing in it is executed or believed: sizes, name and checksums must fit before a pixel is used.

    rows        num_rows × row_bytes
    checks      num_rows × uint32, little-endian: CRC-32 of each row
    footer      JSON: key, shape, damaged rows
    digest      16 bytes: BLAKE2b of checks and footer
    length      uint64, little-endian: bytes of the footer
    magic       8 bytes
"""

import hashlib
import json
import threading
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vitreous.data.pixels.file_locks import try_lock
from vitreous.errors import DamagedFileError

_MAGIC = b"vitpix\x00\x01"
_DIGEST_BYTES = 16
_TAIL_BYTES = _DIGEST_BYTES + 8 + len(_MAGIC)


class PixelWriter:
    """Fills a file row by row, in any order and from several threads; whole only after `finish`.

    Args:
        file: Open for writing, empty.
        shape: `[num_rows, channels, height, width]`.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...]) -> None:
        self._file = file
        self._shape = shape
        self._row_bytes = int(np.prod(shape[1:]))
        # A row that is never put reads as zeros.
        self._checks = np.full(shape[0], zlib.crc32(bytes(self._row_bytes)), dtype="<u4")
        self._lock = threading.Lock()

    def put(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Write one row. Raises OSError where the disk is full; writing to a mapping would end the process instead."""
        content = np.ascontiguousarray(pixels).tobytes()
        self._checks[row] = zlib.crc32(content)
        with self._lock:
            self._file.seek(row * self._row_bytes)
            self._file.write(content)

    def finish(self, key: str, damaged: Mapping[int, str]) -> None:
        """Write checksums and footer.

        Args:
            key: What the rows are, to be asked for when the file is read.
            damaged: Rows without an image, and why.
        """
        footer = json.dumps({"key": key, "shape": self._shape, "damaged": list(damaged.items())}).encode()
        checked = self._checks.tobytes() + footer
        digest = hashlib.blake2b(checked, digest_size=_DIGEST_BYTES).digest()
        self._file.seek(self._shape[0] * self._row_bytes)
        self._file.write(checked + digest + len(footer).to_bytes(8, "little") + _MAGIC)


class PixelFile:
    """A complete file, mapped into memory: the system keeps what is used often, and gives the room back.

    Args:
        path: Where it stands.
        key: What its rows must be.
        shape: What they must measure, `[num_rows, channels, height, width]`.

    Attributes:
        path: As given.
        num_bytes: Its size.
        damaged: Rows without an image, and why.

    Raises:
        DamagedFileError: Cut short, altered, or something else than was asked for.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...]) -> None:
        self.path = path
        with path.open("rb") as file:
            # The mapping holds the file open, and so the lock: while it is in use nobody makes room by removing it.
            try_lock(file, shared=True)
            self._checks, footer = _read_footer(file, path, shape)
            if footer.get("key") != key or footer.get("shape") != list(shape):
                raise DamagedFileError(f"{path}: holds {footer.get('shape')}, not {list(shape)}; delete it")
            self.damaged = _damaged_rows(footer.get("damaged"), path, shape[0])
            self.num_bytes = file.seek(0, 2)
            self._rows = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
        self._is_checked = np.zeros(shape[0], dtype=np.bool_)

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], list[int]]:
        """Copy rows.

        Args:
            rows: Which, `[n]`.

        Returns:
            Pixels, `[n, channels, height, width]`, and the positions in `rows` of those whose checksum is wrong. Each
            row is checked the first time.
        """
        pixels = self._rows[rows]
        wrong = []
        for position in np.flatnonzero(~self._is_checked[rows]).tolist():
            row = int(rows[position])
            if zlib.crc32(pixels[position]) == int(self._checks[row]):
                self._is_checked[row] = True
            else:
                wrong.append(position)
        return pixels, wrong

    def discard(self) -> None:
        """Remove the file, so that the next run makes a new one; what is mapped stays readable."""
        with suppress(OSError):
            self.path.unlink()


def file_bytes(shape: tuple[int, ...]) -> int:
    """About how large a file of this shape is."""
    return int(np.prod(shape)) + 4 * shape[0] + 4096


def _read_footer(file: BinaryIO, path: Path, shape: tuple[int, ...]) -> tuple[NDArray[np.uint32], dict[str, Any]]:
    """The rows' checksums and the footer, after both were checked."""
    rows_bytes, checks_bytes = int(np.prod(shape)), 4 * shape[0]
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    length = int.from_bytes(tail[_DIGEST_BYTES : _DIGEST_BYTES + 8], "little")
    expected = rows_bytes + checks_bytes + length + _TAIL_BYTES
    if not tail.endswith(_MAGIC) or size != expected:
        raise DamagedFileError(f"{path}: is no whole file of {list(shape)} pixels ({size:,} bytes); delete it")
    file.seek(rows_bytes)
    checked = file.read(checks_bytes + length)
    if hashlib.blake2b(checked, digest_size=_DIGEST_BYTES).digest() != tail[:_DIGEST_BYTES]:
        raise DamagedFileError(f"{path}: its footer was altered; delete it")
    try:
        footer = json.loads(checked[checks_bytes:])
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: its footer is no JSON; delete it") from error
    return np.frombuffer(checked, dtype="<u4", count=shape[0]), footer if isinstance(footer, dict) else {}


def _damaged_rows(found: object, path: Path, num_rows: int) -> dict[int, str]:
    pairs = found if isinstance(found, list) else [None]
    damaged: dict[int, str] = {}
    for pair in pairs:
        match pair:
            case [int(row), str(reason)] if 0 <= row < num_rows:
                damaged[row] = reason
            case _:
                raise DamagedFileError(f"{path}: its list of damaged images is none; delete it")
    return damaged
