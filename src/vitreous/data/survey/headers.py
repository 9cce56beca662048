"""Source -> the hash of every sample's content and its header, each sample read once, in some 20 bytes a sample."""

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.decode import Header, reason_of
from vitreous.data.pixels.cache import DIGEST_BYTES, digest_of
from vitreous.data.sources import Source
from vitreous.data.survey.splits import Digests
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DecodeError


@dataclass(frozen=True, eq=False)
class Headers:
    """What one reading of all samples found.

    Attributes:
        digests: `digest_of` each sample's content, `[n, 16]`; zeros where it is unreadable.
        numbers: Which of `different` is each sample's header, `[n]`; -1 where it is unreadable.
        different: Every header that occurs.
        reasons: Why a sample is unreadable, by its number.
    """

    digests: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    different: list[Header]
    reasons: dict[int, str]

    def packed(self, kept: NDArray[np.int64]) -> Digests:
        """The digests of some samples, in 16 bytes each where Python's `bytes` take 65; zeros at an end are cut off."""
        return self.digests[kept].view(f"S{DIGEST_BYTES}")[:, 0]


def read_headers(source: Source, progress: Progress | None = None) -> Headers:
    """Read every sample; nothing is decoded.

    Args:
        source: What to read.
        progress: Called with (done, total).
    """
    digests = np.zeros((len(source), DIGEST_BYTES), dtype=np.uint8)
    numbers = np.full(len(source), -1, dtype=np.int32)
    known: dict[Header, int] = {}
    reasons: dict[int, str] = {}
    lock = Lock()

    def read(index: int) -> None:
        try:
            content = source.content(index)
            header = source.header(index, content)
        except DecodeError as error:
            reasons[index] = reason_of(error, source.describe(index))
            return
        digests[index] = np.frombuffer(digest_of(content), dtype=np.uint8)
        with lock:
            numbers[index] = known.setdefault(header, len(known))

    map_in_order(read, len(source), progress)
    return Headers(digests, numbers, list(known), dict(sorted(reasons.items())))
