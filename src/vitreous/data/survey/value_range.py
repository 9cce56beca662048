"""Source, headers -> the values that become black and white in all images of more than 8 bits.

One range serves the whole data set, so that a brighter image stays brighter. It comes from all images, each with the
same weight, and ignores outliers such as hot pixels: an extreme that is further from the bulk of the values (0.1% to
99.9%) than the bulk is wide. Then it is rounded to what a reader expects:

- black is 0 if no value is negative and the bulk reaches from its lowest value to at least twice that, as light does;
  otherwise black is the lowest value, as for temperatures of 280 to 310 K;
- white is that of the smallest depth that holds whole numbers (255, 1023, 4095, 16383, 65535), or for other numbers 1
  or 255 if the highest is above half of it; otherwise the highest value.

Gray and color share one range. Other channels, such as the bands of a satellite, each have their own.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.decoding.decode import decode_channels, decode_image
from vitreous.data.decoding.depth import FULL_RANGE, MAXIMA, Scale, ValueRange
from vitreous.data.sources import Source
from vitreous.data.survey.headers import Headers
from vitreous.data.workers import map_in_order
from vitreous.errors import DecodeError
from vitreous.seeding import derive, permutation

MOST_IMAGES = 10_000
"""Largest number of deep images that are measured, drawn at random."""

_VALUES_KEPT = 1 << 22
_MOST_PER_IMAGE = 4_096
_VALUES_SORTED = 1 << 16
_BULK = (0.001, 0.999)


@dataclass(frozen=True)
class Measured:
    """The range of a data set, `FULL_RANGE` if it has no deep images, and how it was found."""

    value_range: ValueRange
    value_range_reason: str


@dataclass(frozen=True)
class _Observer(Scale):
    """A scale that keeps a summary of the values instead of scaling them.

    Attributes:
        per_channel: Summarize each channel by itself, not all together.
        num_kept: How many quantiles to keep, evenly spaced.
        seen: Of each image: lowest value, quantiles and highest value, `[num_kept + 2, channels or 1]`.
    """

    per_channel: bool = False
    num_kept: int = _MOST_PER_IMAGE
    seen: list[NDArray[np.float64]] = field(default_factory=list)

    def eight_bits(self, values: NDArray[Any], *, has_alpha: bool = False) -> NDArray[np.uint8]:
        """Keep a summary, and return black pixels."""
        color = values[..., :-1] if has_alpha else values
        color = color.reshape(-1, values.shape[-1] if self.per_channel else 1)
        lowest, highest = color.min(axis=0), color.max(axis=0)
        if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
            raise ValueError("values that are not finite")
        some = np.sort(color[:: max(1, len(color) // _VALUES_SORTED)], axis=0)
        ranks = ((np.arange(self.num_kept) + 0.5) / self.num_kept * len(some)).astype(np.int64)
        self.seen.append(np.stack([lowest, *some[ranks], highest]).astype(np.float64))
        return np.zeros(values.shape, dtype=np.uint8)


def measure_value_range(source: Source, headers: Headers) -> Measured:
    """Measure the range on the deep images; those that do not decode are ignored, as they are reported later."""
    is_deep = np.array([header.is_deep for header in headers.distinct] + [False])
    deep = np.flatnonzero(is_deep[headers.numbers])
    if not len(deep):
        return Measured(FULL_RANGE, "")
    measured = deep[permutation(derive(0, "value range"), len(deep))[:MOST_IMAGES]]
    num_kept = min(_MOST_PER_IMAGE, max(16, _VALUES_KEPT // len(measured)))
    bands = max(headers.distinct[number].bands for number in headers.numbers[deep])

    def observe(position: int) -> NDArray[np.float64] | None:
        encoded = source.encoded(int(measured[position]))
        observer = _Observer(per_channel=bands > 0, num_kept=num_kept)
        try:
            if bands:
                decode_channels(encoded, bands, scale=observer)
            else:
                decode_image(encoded, scale=observer)
        except DecodeError:
            return None
        return observer.seen[0]

    found = [seen for seen in map_in_order(observe, len(measured)) if seen is not None]
    if not found:
        return Measured(FULL_RANGE, "")
    seen = np.stack(found)
    limits = [_limits(seen[:, :, channel]) for channel in range(seen.shape[2])]
    low, high = np.array(limits).T
    beyond = float(((seen[:, 1:-1] < low) | (seen[:, 1:-1] > high)).mean())
    value_range = tuple(limit for pair in limits for limit in pair)
    return Measured(value_range, _reason(len(deep), int((headers.numbers >= 0).sum()), seen, beyond))


def _limits(seen: NDArray[np.float64]) -> tuple[float, float]:
    """Return black and white for the lowest value, the quantiles and the highest value of each image."""
    lowest, highest, bulk = float(seen.min()), float(seen.max()), seen[:, 1:-1]
    bulk_low, bulk_high = np.quantile(bulk, _BULK, method="nearest").tolist()
    width = bulk_high - bulk_low
    low = lowest if bulk_low - lowest <= width else bulk_low
    high = highest if highest - bulk_high <= width else bulk_high
    if low >= 0 and 2 * low <= high:
        low, is_whole = 0.0, bool((seen == np.rint(seen)).all())
        whites = MAXIMA if is_whole else (1.0, MAXIMA[0])
        high = next((top for top in whites if (0 if is_whole else top / 2) < high <= top), high)
    return low, high if high > low else low + 1


def _reason(num_deep: int, num_images: int, seen: NDArray[np.float64], beyond: float) -> str:
    """Say what was found, in one clause."""
    have = "has" if num_deep == 1 else "have"
    which = (
        f"all {num_images:,} images have" if num_deep == num_images else f"{num_deep:,} of {num_images:,} images {have}"
    )
    reason = f"{which} more than 8 bits, with values from {seen.min():g} to {seen.max():g}"
    if seen.shape[2] > 1:
        reason += ", and each channel has its own range"
    if beyond:
        reason += f"; outliers ({beyond:.2%} of the values) are clipped"
    if num_deep < num_images:
        reason += "; images of 8 bits keep 0 to 255"
    return reason
