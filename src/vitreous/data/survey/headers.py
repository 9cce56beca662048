"""Source -> the content hash and header of every sample, each read once; about 20 bytes per sample."""

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.decode import Header, reason_of
from vitreous.data.pixels.digest import DIGEST_BYTES, digest_of
from vitreous.data.sources import Source
from vitreous.data.sources.source import DROPPED
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DecodeError
from vitreous.wording import plural


@dataclass(frozen=True, eq=False)
class Headers:
    """Hashes and headers of all samples.

    Attributes:
        digests: `digest_of` each sample's content, `[n, 16]`; zeros if it is unreadable.
        numbers: Position in `distinct` of each sample's header, `[n]`; -1 if it is unreadable or dropped.
        distinct: The headers that occur, each once.
        reasons: Why samples are unreadable, by sample number.
    """

    digests: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    distinct: list[Header]
    reasons: dict[int, str]


def read_headers(source: Source, progress: Progress | None = None) -> Headers:
    """Read every sample once, without decoding it."""
    digests = np.zeros((len(source), DIGEST_BYTES), dtype=np.uint8)
    numbers = np.full(len(source), -1, dtype=np.int32)
    known: dict[Header, int] = {}
    reasons: dict[int, str] = {}
    lock = Lock()

    def read(index: int) -> None:
        if source.splits[index] == DROPPED:
            return
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
    _leave_out_other_channels(numbers, list(known), reasons)
    return Headers(digests, numbers, list(known), dict(sorted(reasons.items())))


def _leave_out_other_channels(numbers: NDArray[np.int32], distinct: list[Header], reasons: dict[int, str]) -> None:
    """Mark images as unreadable if they have other channels than most images; gray and color go together."""
    bands = np.array([header.bands for header in distinct], dtype=np.int64)
    readable = numbers >= 0
    if not bands.any():
        return
    counts = np.bincount(bands[numbers[readable]])
    usual = int(counts.argmax())
    for index in np.flatnonzero(readable)[bands[numbers[readable]] != usual].tolist():
        found = plural(distinct[numbers[index]].channels, "channel")
        reasons[index] = f"{found}, where most images of the data set have {usual or '1 or 3'}"
        numbers[index] = -1
