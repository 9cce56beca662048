"""An idx file (the format of MNIST), gzipped or not -> a uint8 array. Sizes are checked before memory is allocated.

Source: LeCun, Cortes & Burges 1998, "The MNIST database", section "File formats": two zero bytes, the type (8 =
unsigned byte), the number of dimensions, each size as a big-endian 32-bit integer, then the values.
"""

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from vitreous.errors import DataError
from vitreous.wording import plural

MAX_BYTES = 1 << 28
"""A gzip file that unpacks to more is rejected; no official idx file is that large."""

_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31


def unpack(content: bytes, where: str) -> bytes:
    """Unpack the content of a file, which messages call `where`, if it is gzipped; to `MAX_BYTES` at most.

    Raises DataError if the gzip data is damaged, ends early or too late, or unpacks to more than `MAX_BYTES`.
    """
    if content[:2] != _GZIP_MAGIC:
        return content
    unzip = zlib.decompressobj(wbits=_GZIP_WBITS)
    try:
        unpacked = unzip.decompress(content, MAX_BYTES + 1)
    except zlib.error as error:
        raise DataError(f"{where}: damaged gzip data ({error}); download the file again") from error
    if len(unpacked) > MAX_BYTES:
        raise DataError(f"{where}: unpacks to more than {MAX_BYTES:,} bytes; check that it is an idx file")
    if not unzip.eof:
        raise DataError(f"{where}: gzip data ends early, after {len(unpacked):,} unpacked bytes; download it again")
    if unzip.unused_data.strip(b"\0"):
        raise DataError(f"{where}: has {plural(len(unzip.unused_data), 'byte')} after the gzip data; download it again")
    return unpacked


def parse(content: bytes, where: str) -> NDArray[np.uint8]:
    """Return the values of an unpacked idx file, which messages call `where`, as a read-only array.

    Raises DataError unless it is an idx file of unsigned bytes with 1 to 4 dimensions and of the length in its header.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or not 1 <= content[3] <= 4:
        raise DataError(
            f"{where}: starts with {content[:4].hex() or 'nothing'}, but an idx file of unsigned bytes starts with "
            "00000801 to 00000804; check that this is the right file"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{where}: ends within its header, after {len(content)} bytes; download the file again")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    expected, found = math.prod(shape), len(content) - start
    if expected != found:
        sizes = "x".join(map(str, shape))
        raise DataError(
            f"{where}: the header declares {sizes} = {expected:,} bytes, but {found:,} follow; download the file again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
