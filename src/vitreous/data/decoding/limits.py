"""Environment -> the largest image that is decoded, in pixels."""

import os

from vitreous.errors import ConfigError

VARIABLE = "VITREOUS_MAX_PIXELS"
"""Environment variable that sets another limit, for every command."""

DEFAULT_MAX_PIXELS = 300_000_000
"""About 0.9 GB as RGB; a hostile file of a few kilobytes can declare any size."""

HUGE_PIXELS = 89_478_485
"""Larger images are decoded one at a time. Pillow warns at this size, and refuses twice this size."""


def max_pixels() -> int:
    """Return the limit. Raises ConfigError if the variable is not a whole number above 0."""
    text = os.environ.get(VARIABLE) or str(DEFAULT_MAX_PIXELS)
    digits = text.replace("_", "")
    if not digits.isascii() or not digits.isdigit() or not int(digits):
        raise ConfigError(f"{VARIABLE}={text}: must be a number of pixels above 0; {DEFAULT_MAX_PIXELS} is the default")
    return int(digits)


def check_pixels(count: int | float, shown: str) -> None:
    """Raise ValueError if an image has more pixels than the limit; `shown` is its size in the message."""
    if count > max_pixels():
        raise ValueError(f"{shown} is over the limit of {max_pixels():,} px; set {VARIABLE} to allow more")
