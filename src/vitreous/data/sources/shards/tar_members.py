"""A tar file -> its members, header by header: where the bytes of each one lie. Nothing is unpacked.

ustar, GNU and pax headers. What is no plain file (links, devices, sparse files) is passed over and counted. A header
that makes no sense ends the reading; what stood before it counts.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from vitreous.errors import DataError

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 1 << 20
"""A longer name or pax header is refused: nobody's path is that long."""

MAX_PADDING_BYTES = 1 << 20
"""With more behind its end a tar holds something else, most likely another tar."""

_PLAIN = b"0\x007"
_WITHOUT_DATA = b"123456"
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"
_PAX, _PAX_GLOBAL = b"xX", b"g"
_SPARSE_HAS_MORE, _EXTENSION_HAS_MORE = 482, 504
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"(\xb5/\xfd": ("zstd", "unzstd"),
}


class Member(NamedTuple):
    """A plain file in a tar.

    Attributes:
        name: Its path in the tar; bytes that are no UTF-8 are surrogates. It is a label, never a path to write to.
        offset: Where its bytes begin.
        size: How many there are; all lie within the tar.
        start: The first of them, at most a block.
    """

    name: str
    offset: int
    size: int
    start: bytes


class TarMembers:
    """The plain files of a tar, in their order; go through it once.

    Args:
        file: An open tar; it is sought in.
        size_bytes: How large it is.
        where: What to call it in an error.

    Attributes:
        num_special: Links, devices and sparse files so far; folders are not counted.
        damage: Where and why reading ended before the end of the file; empty if it did not.

    Raises:
        DataError: While iterating: it is compressed, or does not begin like a tar.
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
            block = self._read(at, 2 * BLOCK_BYTES)
            header = block[:BLOCK_BYTES]
            if not header or header.count(0) == BLOCK_BYTES:
                self.damage = self._end(at, not header)
                return
            size = _size_of(header)
            if size is None:
                self._refuse(at)
                return
            kind = header[156:157]
            if kind in _PLAIN and "size" in self._pax:
                size = int(self._pax["size"]) if self._pax["size"].isdigit() and len(self._pax["size"]) < 20 else -1
            self._next = at + BLOCK_BYTES + (0 if kind in _WITHOUT_DATA else -(-size // BLOCK_BYTES) * BLOCK_BYTES)
            extends = kind in (_LONG_NAME, _LONG_LINK, _PAX_GLOBAL) or kind in _PAX
            if size < 0 or (kind not in _WITHOUT_DATA and at + BLOCK_BYTES + size > self._size):
                self.damage = f"cut short: a file at byte {at:,} would end beyond it"
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
        """Bytes of the tar, while it is gone through too; fewer where it ends."""
        return self._read(offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        parts = []
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _end(self, at: int, is_cut: bool) -> str:
        """What is odd about an end here; two blocks of zeros are its mark, and programs pad what follows."""
        if is_cut:
            return f"cut short: no mark of its end at byte {at:,}"
        if self._size - at > MAX_PADDING_BYTES:
            return f"ends at byte {at:,} of {self._size:,}: two tars put together by cat? `tar --concatenate` does it"
        return ""

    def _refuse(self, at: int) -> None:
        if at:
            self.damage = f"damaged at byte {at:,}: no tar header there"
            return
        start = self._read(0, 8)
        for mark, (name, remedy) in _PACKED.items():
            if start.startswith(mark):
                raise DataError(
                    f"{self._where}: is compressed with {name}, so no sample can be reached without all before it; "
                    f"unpack it once with {remedy} (images are compressed anyway)"
                )
        raise DataError(f"{self._where}: is no tar file; give .tar files as webdataset or `vitreous shard` write them")

    def _extend(self, kind: bytes, offset: int, size: int) -> None:
        """What this header says of the next one."""
        if kind == _LONG_NAME:
            self._name = _text(self._read(offset, size))
        elif kind in _PAX:
            self._pax = _pax_records(self._read(offset, size))

    def _member(self, header: bytes, kind: bytes, offset: int, size: int, start: bytes) -> Member | None:
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
        """Old GNU sparse files have further blocks between header and data."""
        has_more, at = header[_SPARSE_HAS_MORE], self._next
        map_at = at - (-(-(_size_of(header) or 0) // BLOCK_BYTES) * BLOCK_BYTES)
        while has_more:
            block = self._read(map_at, BLOCK_BYTES)
            map_at += BLOCK_BYTES
            self._next += BLOCK_BYTES
            has_more = block[_EXTENSION_HAS_MORE] if len(block) == BLOCK_BYTES else 0


def _size_of(header: bytes) -> int | None:
    """The size that a header states; None where it is no header: too short, or with a wrong checksum."""
    if len(header) < BLOCK_BYTES:
        return None
    stated, size = _number(header[148:156]), _number(header[124:136])
    # Spaces stand for the checksum itself. Ancient programs summed signed characters.
    unsigned = 256 + sum(header) - sum(header[148:156])
    if stated != unsigned and stated != unsigned - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        return None
    return size


def _number(field: bytes) -> int | None:
    """Octal digits; or, where the first bit is set, a binary number. None for anything else."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else None
    digits = field.split(b"\0")[0].strip() or b"0"
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None


def _name_of(header: bytes) -> str:
    name = _text(header[:100])
    # GNU's magic is "ustar  "; where POSIX has a prefix it keeps other things.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax_records(block: bytes) -> dict[str, bytes]:
    r"""`length key=value\n` records, until one makes no sense."""
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
