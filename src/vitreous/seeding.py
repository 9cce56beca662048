"""(seed, names, indices) -> random numbers that depend on nothing else.

Randomness here is *counter based*: a random number is a hash of where it is used. There is no generator state to save.
A run therefore resumes exactly at any sample, and a sample is augmented in the same way for any number of workers or
processes.

Source: SplitMix64, Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", fig. 14 (its finalizer).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derive(seed: int, *names: int | str) -> int:
    """Derive a seed for one purpose, e.g. `derive(seed, "init")` or `derive(seed, "dropout", step)`.

    The names are the purpose of the random numbers; any change gives an unrelated seed.

    Returns:
        A 63-bit integer, in [0, 2^63).
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def uniform(seed: int, indices: NDArray[np.int64], num_draws: int) -> NDArray[np.float32]:
    """Draw uniform numbers for each index; each depends only on (seed, index, draw).

    The seed is from `derive`, one per purpose and epoch.

    Returns:
        Numbers in [0, 1), `[n, num_draws]`.
    """
    draws = np.arange(num_draws, dtype=np.uint64)
    counters: NDArray[np.uint64] = indices.astype(np.uint64)[:, None] * np.uint64(num_draws) + draws
    key = np.uint64(seed)
    bits = _mix(_mix(counters * _GOLDEN + key) ^ key)
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def permutation(seed: int, length: int) -> NDArray[np.int64]:
    """Return a random order of `range(length)`, `[length]`, that depends only on the arguments."""
    return np.random.default_rng(seed).permutation(length)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
