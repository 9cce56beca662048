"""Progress of a run, in [0, 1] -> share of the peak learning rate. Pure functions: nothing to save, nothing to lose."""

import math


def warmup_cosine(progress: float, *, warmup_ratio: float) -> float:
    """Rise linearly from zero during the warm-up, then fall along half a cosine to zero.

    Args:
        progress: Share of the run that is behind us, in [0, 1].
        warmup_ratio: Share of the run spent rising, in [0, 1).

    Returns:
        A factor in [0, 1] for the learning rate.

    Source: Loshchilov & Hutter 2017, eq. 5 without restarts (1608.03983); warm-up of Goyal et al. 2017 (1706.02677).
    """
    if progress < warmup_ratio:
        return progress / warmup_ratio
    fall = (min(progress, 1.0) - warmup_ratio) / (1 - warmup_ratio)
    return 0.5 * (1 + math.cos(math.pi * fall))
