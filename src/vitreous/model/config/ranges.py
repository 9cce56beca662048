"""A value of a model's configuration -> the same value, or one line that says which rule it breaks."""

import math
from collections.abc import Iterable

from vitreous.errors import ConfigError, UnknownNameError, nearest

_MOST = 2**31 - 1
_MOST_PATCHES = 1_000_000  # beyond any attention; a typo, or a forged file, must not allocate


def check_whole(key: str, got: object, *, least: int) -> None:
    """Between `least` and what a tensor's side may be, so that no later arithmetic overflows. Raises ConfigError."""
    if isinstance(got, bool) or not isinstance(got, int):
        raise ConfigError(f"{key}={got!r}: must be a whole number; use {least} or more, without quotes or a point")
    if got < least:
        raise ConfigError(f"{key}={got}: must be at least {least}; use {least} or more")
    if got > _MOST:
        raise ConfigError(f"{key}={got}: must be at most {_MOST}; use less")


def check_positive(key: str, got: object) -> None:
    """A finite number above 0. Raises ConfigError."""
    if isinstance(got, bool) or not isinstance(got, int | float) or not (0 < got <= _MOST):
        example = "0.000001" if "eps" in key else "4.0"
        raise ConfigError(f"{key}={got!r}: must be a number above 0 and at most {_MOST}; use e.g. {example}")


def check_rate(key: str, got: object) -> None:
    """A probability below 1. Raises ConfigError."""
    if isinstance(got, bool) or not isinstance(got, int | float) or not (0 <= got < 1):
        raise ConfigError(f"{key}={got!r}: must be a probability below 1; use a number in [0, 1), e.g. 0.1")


def check_scale(key: str, got: object) -> None:
    """A finite number, 0 or above. Raises ConfigError."""
    if isinstance(got, bool) or not isinstance(got, int | float) or not (0 <= got <= _MOST):
        raise ConfigError(f"{key}={got!r}: must be a number from 0 to {_MOST}; use e.g. 0.0001, or 0 for none")


def check_choice(key: str, got: object, names: tuple[str, ...]) -> None:
    """One of a list. Raises UnknownNameError."""
    if got not in names:
        raise UnknownNameError(f"{key}={got}: no such choice; {nearest(str(got), names)}")


def check_truth(key: str, got: object) -> None:
    """A truth value and nothing that merely counts as one. Raises ConfigError."""
    if not isinstance(got, bool):
        raise ConfigError(f"{key}={got!r}: must be a truth value; use true or false")


def check_size(got: object) -> None:
    """Height and width in px. Raises ConfigError."""
    if not isinstance(got, tuple) or len(got) != 2:
        raise ConfigError(f"data.img_size={got!r}: must be a height and a width in px; use e.g. (224, 224)")
    for side in got:
        check_whole("data.img_size", side, least=1)


def check_patches(patch_size: int, img_size: tuple[int, int]) -> None:
    """Patches that tile the image, and not more of them than attention could ever take. Raises ConfigError."""
    height, width = img_size
    if height % patch_size or width % patch_size:
        size, remainder = f"{height}x{width}", f"{height % patch_size}x{width % patch_size}"
        if height == width:
            size, remainder = f"{height}", f"{height % patch_size}"
        raise ConfigError(
            f"model.patch_size={patch_size}: does not divide data.img_size={size} (remainder {remainder}); "
            f"use {_listed(_patches_near(patch_size, height, width))}"
        )
    num_patches = (height // patch_size) * (width // patch_size)
    if num_patches > _MOST_PATCHES:
        raise ConfigError(
            f"model.patch_size={patch_size}: cuts an image of {height}x{width} px into {num_patches} patches, "
            f"at most {_MOST_PATCHES} are allowed; use larger patches"
        )


def check_heads(num_heads: int, embed_dim: int) -> None:
    """Heads that share the width evenly. Raises ConfigError."""
    remainder = embed_dim % num_heads
    if remainder:
        near = sorted(sorted(_divisors(embed_dim), key=lambda divisor: abs(divisor - num_heads))[:3])
        raise ConfigError(
            f"model.num_heads={num_heads}: does not divide model.embed_dim={embed_dim} (remainder {remainder}); "
            f"use {_listed(near)}, or say how wide a head is with model.head_dim"
        )


def check_multiple(key: str, got: int, of: int, why: str) -> None:
    """A multiple of `of`; `why` says who needs that. Raises ConfigError."""
    if got % of:
        raise ConfigError(f"{key}={got}: must be a multiple of {of} for {why}; use {got + of - got % of}")


def check_power_of_two(key: str, got: int, why: str) -> None:
    """2, 4, 8 …; `why` says who needs that. Raises ConfigError."""
    if got < 2 or got & (got - 1):
        near = 2 ** max(1, round(math.log2(got)))
        raise ConfigError(f"{key}={got}: must be a power of two for {why}; use {near}")


def _patches_near(side: int, height: int, width: int) -> list[int]:
    """The next smaller patch that tiles the image and the next three larger ones, which also cost less to run."""
    tiling = _divisors(math.gcd(height, width))
    if len(tiling) > 2 and height == width:
        tiling.pop()  # one patch for the whole image tiles it too, but leaves nothing to attend to
    smaller, larger = [p for p in tiling if p < side], [p for p in tiling if p > side]
    return smaller[-1:] + larger[:3]


def _divisors(number: int) -> list[int]:
    # Only for suggestions, so an absurdly large number may miss some rather than take minutes.
    low = [divisor for divisor in range(1, min(math.isqrt(number), 10_000) + 1) if number % divisor == 0]
    return sorted({*low, *(number // divisor for divisor in low)})


def _listed(numbers: Iterable[int]) -> str:
    *head, last = map(str, numbers)
    return f"{', '.join(head)} or {last}" if head else last
