"""Valid files -> a damaged one: changed bits, bytes and numbers, cut, spliced and repeated parts."""

import re
from collections.abc import Sequence

import numpy as np

LARGEST = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff", b"\xff\xff\xff\x7f", b"\x00" * 4)
NUMBERS = (b"0", b"-1", b"7", b"4294967296", b"99999999999999999999", b"1e999", b"NaN", b"0.5", b"null", b"[]", b'""')
HEADER_BYTES = 100


def mutated(draw: np.random.Generator, contents: Sequence[bytes]) -> bytes:
    """Return one of the files with one to five changes; every tenth file is left as it is."""
    content = bytearray(contents[draw.integers(len(contents))])
    for _ in range(draw.integers(1, 6) if draw.random() > 0.1 else 0):
        # Headers matter most, so half of the changes are in the first bytes.
        limit = min(HEADER_BYTES, len(content)) if draw.random() < 0.5 else len(content)
        place = int(draw.integers(limit)) if content else 0
        match draw.integers(9):
            case 0:
                content[place : place + 1] = bytes([draw.integers(256)])
            case 1:
                content[place : place + 4] = LARGEST[draw.integers(len(LARGEST))]
            case 2:
                del content[place : place + int(draw.integers(1, 50))]
            case 3:
                content[place:place] = draw.bytes(int(draw.integers(1, 50)))
            case 4:
                del content[max(1, place) :]
            case 5:
                other = contents[draw.integers(len(contents))]
                content[place:] = other[int(draw.integers(len(other))) :]
            case 6 if content:
                content[place] ^= 1 << int(draw.integers(8))
            case 7:
                content[place:place] = content[place : place + int(draw.integers(1, 600))]
            case 8:
                _change_number(draw, content, place)
    return bytes(content)


def _change_number(draw: np.random.Generator, content: bytearray, place: int) -> None:
    """Replace the first decimal number after a place."""
    found = re.compile(rb"[0-9]+").search(content, place)
    if found:
        content[found.start() : found.end()] = NUMBERS[draw.integers(len(NUMBERS))]
