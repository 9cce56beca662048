"""An idx file (MNIST's format), gzipped or not -> a uint8 array. Hostile input is refused before memory is taken.

Source: LeCun, Cortes & Burges 1998, "The MNIST database", section "File formats": two zero bytes, the type (8 =
unsigned byte), the number of dimensions, each size as a big-endian 32-bit integer, then the values.
"""

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from vitreous.errors import DataError

MAX_BYTES = 1 << 30
"""No idx set is larger than this; a gzip file that would unpack to more is refused."""

_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31


def unpack(content: bytes, where: str) -> bytes:
    """Unzip a file's content where it is gzipped.

    Args:
        content: An idx file, plain or gzipped.
        where: What to call it in an error.

    Returns:
        At most `MAX_BYTES` bytes.

    Raises:
        DataError: The gzip data is damaged, ends early, or unpacks to more than `MAX_BYTES`.
    """
    if content[:2] != _GZIP_MAGIC:
        return content
    unzip = zlib.decompressobj(wbits=_GZIP_WBITS)
    try:
        unpacked = unzip.decompress(content, MAX_BYTES + 1)
    except zlib.error as error:
        raise DataError(f"{where}: damaged gzip data ({error}); fetch the file again") from error
    if len(unpacked) > MAX_BYTES:
        raise DataError(f"{where}: unpacks to more than {MAX_BYTES:,} bytes; is it an idx file?")
    if not unzip.eof:
        raise DataError(f"{where}: gzip data ends early, after {len(unpacked):,} unpacked bytes; fetch the file again")
    return unpacked


def parse(content: bytes, where: str) -> NDArray[np.uint8]:
    """Read the header, check it against the content, and view the rest.

    Args:
        content: An unpacked idx file.
        where: What to call it in an error.

    Returns:
        A read-only array with the dimensions of the header.

    Raises:
        DataError: Not an idx file of unsigned bytes with 1 to 4 dimensions, or sizes that do not match the content.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or not 1 <= content[3] <= 4:
        raise DataError(
            f"{where}: starts with {content[:4].hex() or 'nothing'}; must be an idx file of bytes, 00000801…04"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{where}: ends within its header after {len(content)} bytes; fetch the file again")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    expected, found = math.prod(shape), len(content) - start
    if expected != found:
        sizes = "x".join(map(str, shape))
        raise DataError(f"{where}: header says {sizes} = {expected} bytes, {found} follow; fetch the file again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
