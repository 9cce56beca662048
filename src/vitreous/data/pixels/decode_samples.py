"""Samples of a source -> their pixels, decoded by a few threads, and the reasons why some samples have none."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.decoding.decode import ImageLike, reason_of
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.digest import digest_of
from vitreous.data.sources import Source
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DamagedFileError, DecodeError


def decode_sample(source: Source, index: int, preprocess: Preprocess) -> Tensor:
    """Return the pixels of one sample. Raises DecodeError if it does not decode."""
    return preprocess.pixels(source.encoded(index), where=source.describe(index))


def decode_samples(
    source: Source,
    indices: NDArray[np.int64],
    preprocess: Preprocess,
    keep: Callable[[int, NDArray[np.uint8]], None],
    *,
    digests: NDArray[np.uint8] | None = None,
    progress: Progress | None = None,
) -> dict[int, str]:
    """Decode samples in parallel, and return the positions in `indices` that do not decode, each with the reason.

    `keep` is called with (position in `indices`, pixels), from several threads at once. `digests` are `digest_of` each
    sample as it was hashed earlier, `[n, 16]`: DamagedFileError is raised if one can no longer be read or has changed.
    None: do not check for changes.
    """
    reasons: dict[int, str] = {}

    def decode_one(position: int) -> None:
        index = int(indices[position])
        where = source.describe(index)
        try:
            encoded = source.encoded(index) if digests is None else _unchanged(source, index, digests[position])
            pixels = preprocess.pixels(encoded, where=where)
        except DecodeError as error:
            reasons[position] = reason_of(error, where)
        else:
            keep(position, pixels.numpy())

    map_in_order(decode_one, len(indices), progress)
    return dict(sorted(reasons.items()))


def _unchanged(source: Source, index: int, digest: NDArray[np.uint8]) -> ImageLike:
    """Read a sample, and raise DamagedFileError unless its content still has this digest."""
    try:
        encoded = source.encoded(index)
        # For files, `encoded` is the content. Reading it once ensures that the bytes that are hashed are decoded.
        content = encoded if isinstance(encoded, bytes) else source.content(index)
    except DecodeError as error:  # the disk may recover, so this must not be recorded as a damaged image
        raise DamagedFileError(f"{error}; run again when it can be read") from error
    if digest_of(content) != digest.tobytes():
        where = source.describe(index)
        raise DamagedFileError(f"{where}: has changed since it was first read; run again once it no longer changes")
    return encoded
