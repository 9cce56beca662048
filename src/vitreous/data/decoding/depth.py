"""Values of any depth -> 8 bits, by one scale for a whole data set.

8-bit values stay what they are. Deeper ones (16 bits, floats) have no natural white: a 16-bit file may hold 12 bits or
temperatures. If each image were stretched by its own maximum, a brighter image would come out darker, and classes that
differ in level would look alike. So the survey decides one range of values (`survey/value_range.py`), it is stored with
the preprocessing, and every image uses it: training, evaluation and prediction, gray and color alike.

A folder may mix depths. An image of 8 bits spans its own full scale, 0 to 255, whatever the range of the deeper ones:
who exports one photo with 12 bits and one with 8 bits means the same white.
"""

import warnings
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.errors import ClippedWarning
from vitreous.wording import plural

ValueRange = tuple[float, ...]
"""Values that become black and white: low and high for all channels, or low and high of each channel in turn."""

FULL_RANGE: ValueRange = ()
"""The range of the type: 0 to 65535 for uint16, 0 to 1 for floats, 0 to 255 for other integers."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths of cameras and scanners; 10, 12 and 14 bits are stored in files of 16 bits."""

MAXIMA = tuple(float(2**bits - 1) for bits in DEPTHS)

_OVERSHOOT = 0.1
"""How far floats may leave 0 to 1, e.g. after interpolation; they are clipped. Others are in unknown units."""

_VALUES_AT_ONCE = 1 << 22


@dataclass
class Clipped:
    """A count of the values that were beyond the range and therefore clipped; safe to use in several threads.

    `num_images` have at least one of the `num_values` beyond the range; `total` values were scaled.
    """

    num_images: int = 0
    num_values: int = 0
    total: int = 0
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    def add(self, other: "Clipped") -> None:
        """Add what another one has counted."""
        with self._lock:
            self.num_images += other.num_images
            self.num_values += other.num_values
            self.total += other.total

    def take(self) -> "Clipped":
        """Return the counts, and start again from 0."""
        with self._lock:
            found = Clipped(self.num_images, self.num_values, self.total)
            self.num_images = self.num_values = self.total = 0
            return found

    def __reduce__(self) -> tuple[type["Clipped"], tuple[int, int, int]]:
        """Return the constructor and its arguments, because a lock cannot be sent to another process."""
        return Clipped, (self.num_images, self.num_values, self.total)


@dataclass(frozen=True)
class Scale:
    """The range of values that becomes black to white.

    Attributes:
        value_range: Low and high, for all channels or for each; `FULL_RANGE` for that of the type. None scales each
            image by the bits that its own values need, as models of earlier versions were trained.
        clipped: Counts what is beyond.
    """

    value_range: ValueRange | None = FULL_RANGE
    clipped: Clipped = field(default_factory=Clipped, repr=False, compare=False)

    def warn_of_clipped(self) -> None:
        """Warn once of all values that were clipped since the last call."""
        found = self.clipped.take()
        if found.num_images:
            count, share = plural(found.num_images, "image"), found.num_values / max(1, found.total)
            limits = ",".join(f"{limit:g}" for limit in self.value_range or ())
            beyond = f"data.value_range={limits}" if limits else "the range of their type"
            warnings.warn(
                f"{count} with values beyond {beyond}: {100 * share:.2g}% of the values were "
                "clipped; use images of the same depth and units as the training images",
                ClippedWarning,
                stacklevel=3,
            )

    def eight_bits(self, values: NDArray[Any], *, has_alpha: bool = False) -> NDArray[np.uint8]:
        """Scale linearly to 0..255, and clip and count what is beyond the range.

        Channels are last. With `has_alpha`, the last one is opacity, which always spans the range of its type. Raises
        ValueError if a value is not finite, or the range is unknown.
        """
        if values.dtype == np.uint8:
            return values
        if values.dtype == np.bool_:
            return values.astype(np.uint8) * np.uint8(255)
        if has_alpha:
            alpha = BY_TYPE.eight_bits(values[..., -1:])
            return np.concatenate([self.eight_bits(values[..., :-1]), alpha], axis=-1)
        extremes = float(values.min()), float(values.max())
        if not np.isfinite(extremes).all():
            raise ValueError(f"values from {extremes[0]:g} to {extremes[1]:g}; must be finite")
        if self.value_range is None:
            limits: ValueRange = (0.0, _own_maximum(values, *extremes))
        else:
            limits = self.value_range or (0.0, _full_range(values, *extremes))
        low, high = np.array(limits[::2]), np.array(limits[1::2])
        channels = values.shape[2] if values.ndim == 3 else 1
        if len(low) not in (1, channels):
            raise ValueError(f"{plural(channels, 'channel')}, but data.value_range is for {len(low)}")
        pixels, num_beyond = np.empty(values.shape, dtype=np.uint8), 0
        rows = max(1, _VALUES_AT_ONCE // max(1, values[:1].size))
        for start in range(0, len(values), rows):  # a large image in float64 would take 8 times its size
            part = values[start : start + rows]
            scaled = (part.astype(np.float64) - low) * (255.0 / (high - low))
            num_beyond += int(((part < low) | (part > high)).sum())
            pixels[start : start + rows] = np.rint(scaled.clip(0.0, 255.0))
        self.clipped.add(Clipped(int(num_beyond > 0), num_beyond, values.size))
        return pixels


BY_TYPE = Scale()
"""For images that belong to no data set; its counts are not used."""


def _full_range(values: NDArray[Any], lowest: float, highest: float) -> float:
    """Return the white of the values' type. Raises ValueError if they are in other units."""
    top, slack = 255.0, 0.0
    if values.dtype.kind == "f":
        top, slack = 1.0, _OVERSHOOT
    elif values.dtype.kind == "u" and values.dtype.itemsize == 2:
        top = MAXIMA[-1]
    if lowest < -slack or highest > top + slack:
        raise ValueError(
            f"values from {lowest:g} to {highest:g}; must lie in 0..1 (float), 0..65535 (uint16) or 0..255 "
            "(other integers)"
        )
    return top


def _own_maximum(values: NDArray[Any], lowest: float, highest: float) -> float:
    """Return the white of earlier versions: the smallest of 1 (floats only) and 8, 10, … 16 bits that holds all."""
    if not (lowest >= 0.0 and highest <= MAXIMA[-1]):
        raise ValueError(f"values from {lowest:g} to {highest:g}; must lie in 0..1 (float) or 0..65535")
    return 1.0 if highest <= 1.0 and values.dtype.kind == "f" else min(top for top in MAXIMA if highest <= top)
