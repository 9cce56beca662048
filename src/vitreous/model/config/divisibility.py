"""Sizes of a model -> an error that suggests other sizes, unless they divide one another as required."""

import math

from vitreous.errors import ConfigError

_MAX_PATCHES = 1_000_000  # More than any attention can take: a typo or a forged file must not allocate memory.


def check_patches(patch_size: int, img_size: tuple[int, int]) -> None:
    """Raise ConfigError unless patches tile the image, and there are not absurdly many of them."""
    height, width = img_size
    if height % patch_size or width % patch_size:
        size, remainder = f"{height}x{width}", f"{height % patch_size}x{width % patch_size}"
        if height == width:
            size, remainder = f"{height}", f"{height % patch_size}"
        raise ConfigError(
            f"model.patch_size={patch_size}: does not divide data.img_size={size} (remainder {remainder}); "
            f"use {_either(_tiling_sizes(patch_size, height, width))}"
        )
    num_patches = (height // patch_size) * (width // patch_size)
    if num_patches > _MAX_PATCHES:
        raise ConfigError(
            f"model.patch_size={patch_size}: cuts an image of {height}x{width} px into {num_patches} patches, "
            f"at most {_MAX_PATCHES} are allowed; use larger patches"
        )


def check_heads(num_heads: int, embed_dim: int) -> None:
    """Raise ConfigError unless the number of heads divides the embedding dimension."""
    remainder = embed_dim % num_heads
    if remainder:
        near = sorted(sorted(_divisors(embed_dim), key=lambda divisor: abs(divisor - num_heads))[:3])
        raise ConfigError(
            f"model.num_heads={num_heads}: does not divide model.embed_dim={embed_dim} (remainder {remainder}); "
            f"use {_either(near)}, or set model.head_dim"
        )


def check_multiple(key: str, got: int, factor: int, why: str) -> None:
    """Raise ConfigError unless a value is a multiple of `factor`; `why` is the setting that requires it."""
    if got % factor:
        raise ConfigError(f"{key}={got}: must be a multiple of {factor} for {why}; use {got + factor - got % factor}")


def check_power_of_two(key: str, got: int, why: str) -> None:
    """Raise ConfigError unless a value is 2, 4, 8, ...; `why` is the setting that requires it."""
    if got < 2 or got & (got - 1):
        near = 2 ** max(1, round(math.log2(got)))
        raise ConfigError(f"{key}={got}: must be a power of two for {why}; use {near}")


def _tiling_sizes(patch_size: int, height: int, width: int) -> list[int]:
    """Return the next smaller patch size that tiles the image, and the next three larger ones, which cost less."""
    tiling = _divisors(math.gcd(height, width))
    if len(tiling) > 2 and height == width:
        tiling.pop()  # A single patch tiles the image too, but leaves nothing to attend to.
    return [size for size in tiling if size < patch_size][-1:] + [size for size in tiling if size > patch_size][:3]


def _divisors(number: int) -> list[int]:
    # Only for suggestions: for an absurdly large number some may be missing, which is better than taking minutes.
    low = [divisor for divisor in range(1, min(math.isqrt(number), 10_000) + 1) if number % divisor == 0]
    return sorted({*low, *(number // divisor for divisor in low)})


def _either(numbers: list[int]) -> str:
    *head, last = map(str, numbers)
    return f"{', '.join(head)} or {last}" if head else last
