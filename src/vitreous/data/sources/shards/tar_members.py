"""A tar file -> its members, read header by header: where the bytes of each one are. Nothing is unpacked.

Reads ustar, GNU and pax headers. Members that are not plain files (links, devices, sparse files) are skipped and
counted. Reading ends at an invalid header; the members before it count.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, NoReturn

from vitreous.errors import DataError

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 1 << 20
"""A longer name or pax header is rejected; no real path is that long."""

MAX_PADDING_BYTES = 1 << 20
"""If more than this follows the end mark, it is not padding but most likely a second tar file."""

_PLAIN = b"0\x007"
_WITHOUT_DATA = b"123456"
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"
_PAX, _PAX_GLOBAL = b"xX", b"g"
_SPARSE_HAS_MORE, _EXTENSION_HAS_MORE = 482, 504
_OTHER_NUMBERS = ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
"""Mode, owner, group, time and device: not used, but a damaged header often has other characters there."""
_COMPRESSED_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
_DECOMPRESSORS = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz", "zstd": "unzstd"}


class Member(NamedTuple):
    """A plain file in a tar file.

    Its name is its path in the tar file; bytes that are not UTF-8 are surrogates. Use it as a label, never write to it.
    `offset` is the position of its first byte in the tar file, which has all of its `size` bytes; `start` are the first
    ones, at most one block.
    """

    name: str
    offset: int
    size: int
    start: bytes


class TarMembers:
    """The plain files of a tar file, in order; can be iterated once.

    The file is open and seekable. `num_special` counts links, devices and sparse files so far; folders are not counted.
    `damage` says where and why reading ended before the end of the file; it is empty if it did not.

    Raises:
        DataError: While iterating, if the file is compressed or does not begin like a tar file.
    """

    def __init__(self, file: BinaryIO, size_bytes: int, where: str) -> None:
        self.num_special = 0
        self.damage = ""
        self._file, self._size, self._where = file, size_bytes, where
        self._next = 0
        self._name: str | None = None
        self._pax: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Member]:
        while True:
            at = self._next
            block = self.read(at, 2 * BLOCK_BYTES)
            header = block[:BLOCK_BYTES]
            if not header or header.count(0) == BLOCK_BYTES:
                self.damage = self._damage_at_end(at, is_cut=not header)
                return
            size = _size_of(header)
            if size is None:
                if at == 0:
                    self._refuse()
                self.damage = f"damaged at byte {at:,}: no tar header there"
                return
            kind = header[156:157]
            if kind in _PLAIN and "size" in self._pax:
                size = int(self._pax["size"]) if self._pax["size"].isdigit() and len(self._pax["size"]) < 20 else -1
            self._next = at + BLOCK_BYTES + (0 if kind in _WITHOUT_DATA else -(-size // BLOCK_BYTES) * BLOCK_BYTES)
            extends = kind in (_LONG_NAME, _LONG_LINK, _PAX_GLOBAL) or kind in _PAX
            if size < 0 or (kind not in _WITHOUT_DATA and at + BLOCK_BYTES + size > self._size):
                self.damage = f"cut short: the member at byte {at:,} would end beyond the end of the file"
                return
            if extends:
                if size > MAX_EXTENSION_BYTES:
                    self.damage = f"damaged at byte {at:,}: a name of {size:,} bytes"
                    return
                self._extend(kind, at + BLOCK_BYTES, size)
                continue
            member = self._member(header, kind, at + BLOCK_BYTES, size, block[BLOCK_BYTES:])
            self._name, self._pax = None, {}
            if member is not None:
                yield member

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the tar file, fewer at its end; may be called while iterating."""
        self._file.seek(offset)
        parts = []
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _damage_at_end(self, at: int, *, is_cut: bool) -> str:
        """Describe what is wrong with an end at this byte; empty if nothing is."""
        if is_cut:  # a complete file ends with two blocks of zeros
            return f"cut short: no end mark at byte {at:,}"
        if self._size - at > MAX_PADDING_BYTES:  # programs pad the end with zeros
            return f"ends at byte {at:,} of {self._size:,}; if `cat` joined several tar files, use `tar --concatenate`"
        return ""

    def _refuse(self) -> NoReturn:
        """Raise DataError for a file that does not begin like a tar file."""
        start = self.read(0, 8)
        for magic, compression in _COMPRESSED_MAGIC.items():
            if start.startswith(magic):
                refuse_compressed(f"{self._where}: the file", compression)
        raise DataError(f"{self._where}: not a tar file; use .tar files from webdataset or `vitreous shard`")

    def _extend(self, kind: bytes, offset: int, size: int) -> None:
        """Remember what an extension header says about the next member."""
        if kind == _LONG_NAME:
            self._name = _text(self.read(offset, size))
        elif kind in _PAX:
            self._pax = _pax_records(self.read(offset, size))

    def _member(self, header: bytes, kind: bytes, offset: int, size: int, start: bytes) -> Member | None:
        """Return the member of a header, or None if it is not a plain file."""
        name = self._name if self._name is not None else _name_of(header)
        if "path" in self._pax:
            name = _text(self._pax["path"])
        if kind == b"5" or name.endswith("/"):
            return None
        if kind == _SPARSE:
            self._skip_sparse_map(header)
        if kind not in _PLAIN or any(key.startswith("GNU.sparse") for key in self._pax):
            self.num_special += 1
            return None
        return Member(name, offset, size, start[:size])

    def _skip_sparse_map(self, header: bytes) -> None:
        """Skip the additional blocks that old GNU sparse files have between header and data."""
        has_more, at = header[_SPARSE_HAS_MORE], self._next
        map_at = at - (-(-(_size_of(header) or 0) // BLOCK_BYTES) * BLOCK_BYTES)
        while has_more:
            block = self.read(map_at, BLOCK_BYTES)
            map_at += BLOCK_BYTES
            self._next += BLOCK_BYTES
            has_more = block[_EXTENSION_HAS_MORE] if len(block) == BLOCK_BYTES else 0


def refuse_compressed(what: str, compression: str) -> NoReturn:
    """Raise DataError, which says that the tar file `what` is compressed with `gzip`, `bzip2`, `xz` or `zstd`."""
    raise DataError(
        f"{what} is compressed with {compression}, so samples cannot be read individually; "
        f"decompress it once with {_DECOMPRESSORS[compression]} (images are compressed anyway)"
    )


def _size_of(header: bytes) -> int | None:
    """Return the size that a header states, or None if it is too short, has a wrong checksum or invalid numbers."""
    if len(header) < BLOCK_BYTES:
        return None
    stated, size = _number(header[148:156]), _number(header[124:136])
    # The checksum is computed with spaces in its own place. Very old programs summed signed characters.
    unsigned = 256 + sum(header) - sum(header[148:156])
    if stated != unsigned and stated != unsigned - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        return None
    is_valid = all(header[start] == 0xFF or _number(header[start:end]) is not None for start, end in _OTHER_NUMBERS)
    return size if is_valid else None


def _number(field: bytes) -> int | None:
    """Read octal digits, or a binary number if the first bit is set; None for anything else."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else None
    digits = field.split(b"\0")[0].strip() or b"0"
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None


def _name_of(header: bytes) -> str:
    name = _text(header[:100])
    # Only POSIX headers have a prefix there; in GNU headers (magic "ustar  ") the field holds other data.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax_records(block: bytes) -> dict[str, bytes]:
    r"""Read `length key=value\n` records up to the first invalid one."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(block):
        space = block.find(b" ", at, at + 10)
        if space < 0 or not block[at:space].isdigit():
            break
        end = at + int(block[at:space])
        key, equals, value = block[space + 1 : end - 1].partition(b"=")
        if not equals or end > len(block) or end <= at:
            break
        found[key.decode("utf-8", "replace")] = value
        at = end
    return found
