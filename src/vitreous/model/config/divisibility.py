"""Sizes of a model -> an error that suggests other sizes, unless they divide one another as required."""

import math

from vitreous.errors import ConfigError

CONVOLUTIONS = ("conv", "cct")
"""Stems that halve the image once or several times."""
_MAX_PATCHES = 1_000_000  # More than any attention can take: a typo or a forged file must not allocate memory.


def check_patches(patch_size: int, img_size: tuple[int, int], stem: str) -> None:
    """Raise ConfigError unless the stem can make such patches, they tile the image, and they are not too many."""
    height, width = img_size
    tiling = patch_sizes(stem, height, width)
    if stem in CONVOLUTIONS and not is_power_of_two(patch_size):
        near = sorted(sorted(tiling, key=lambda side: abs(math.log(side / patch_size)))[:2])
        way_out = _either([*map(str, near)] or ["2, 4 or 8 and a data.img_size that it divides"])
        raise ConfigError(f"model.patch_size={patch_size}: must be a power of two for model.stem={stem}; use {way_out}")
    if height % patch_size or width % patch_size:
        size, remainder = f"{height}x{width}", f"{height % patch_size}x{width % patch_size}"
        if height == width:
            size, remainder = f"{height}", f"{height % patch_size}"
        near = [side for side in _near(tiling, patch_size, height, width) if height * width <= _MAX_PATCHES * side**2]
        raise ConfigError(
            f"model.patch_size={patch_size}: does not divide data.img_size={size} (remainder {remainder}); "
            f"use {_either([*map(str, near), f'data.img_size={_tiled(patch_size, img_size)}'])}"
        )
    num_patches = (height // patch_size) * (width // patch_size)
    if num_patches > _MAX_PATCHES:
        raise ConfigError(
            f"model.patch_size={patch_size}: cuts an image of {height}x{width} px into {num_patches:,} patches, "
            f"at most {_MAX_PATCHES:,} are allowed; use larger patches"
        )


def check_heads(num_heads: int, embed_dim: int, per_head: int, way_out: str) -> None:
    """Raise ConfigError unless the heads divide the embedding dimension; each should be a multiple of `per_head`."""
    remainder = embed_dim % num_heads
    if remainder:
        suitable = [found for found in divisors(embed_dim) if embed_dim % (found * per_head) == 0] or [1]
        near = sorted(sorted(suitable, key=lambda divisor: abs(divisor - num_heads))[:3])
        raise ConfigError(
            f"model.num_heads={num_heads}: does not divide model.embed_dim={embed_dim} (remainder {remainder}); "
            f"use {_either([*map(str, near)])}{way_out}"
        )


def check_multiple(key: str, got: int, factor: int, why: str, step: int = 1) -> None:
    """Raise ConfigError unless a value is a multiple of `factor`.

    `why` is the setting that requires it. The suggested value is a multiple of `step` as well, for another rule.
    """
    if got % factor:
        step = math.lcm(factor, step)
        raise ConfigError(f"{key}={got}: must be a multiple of {factor} for {why}; use {got + step - got % step}")


def is_power_of_two(number: int) -> bool:
    """Return True for 2, 4, 8, ..., the patch sizes of stems whose layers each halve the image."""
    return number >= 2 and not number & (number - 1)


def patch_sizes(stem: str, *lengths: int) -> list[int]:
    """Return the sides of the square patches that tile these lengths and that the stem can make, smallest first."""
    sides = divisors(math.gcd(*lengths))
    return [side for side in sides if is_power_of_two(side)] if stem in CONVOLUTIONS else sides


def _near(tiling: list[int], patch_size: int, height: int, width: int) -> list[int]:
    """Return the next smaller patch size that tiles the image, and the next three larger ones, which cost less."""
    if len(tiling) > 2 and tiling[-1] == height == width:
        tiling = tiling[:-1]  # A single patch tiles the image too, but leaves nothing to attend to.
    return [size for size in tiling if size < patch_size][-1:] + [size for size in tiling if size > patch_size][:3]


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, smallest first."""
    # For an absurdly large number some may be missing, which is better than taking minutes.
    low = [divisor for divisor in range(1, min(math.isqrt(number), 10_000) + 1) if number % divisor == 0]
    return sorted({*low, *(number // divisor for divisor in low)})


def _tiled(patch_size: int, img_size: tuple[int, int]) -> str:
    """Return the nearest image size that the patches tile."""
    sides = [max(1, round(px / patch_size)) * patch_size for px in img_size]
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def _either(options: list[str]) -> str:
    *head, last = options
    return f"{', '.join(head)} or {last}" if head else last
