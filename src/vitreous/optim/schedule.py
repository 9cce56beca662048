"""Progress of a run, in [0, 1] -> share of the peak learning rate. Pure functions: nothing to save, nothing to lose."""

import math

from vitreous.optim.config import OptimConfig


def learning_rate_share(progress: float, config: OptimConfig) -> float:
    """Rise linearly from zero during the warm-up, then go on as `config.schedule` says.

    Args:
        progress: Share of the run that is behind us, in [0, 1]; what is beyond 1 counts as 1.
        config: Its `schedule`, `warmup_ratio` and `cooldown_ratio` are read.

    Returns:
        A factor in [0, 1] for the learning rate.

    Source: The warm-up is that of Goyal et al. 2017 (1706.02677).
    """
    warmup = config.warmup_ratio
    if progress < warmup:
        return progress / warmup
    progress = min(progress, 1.0)
    match config.schedule:
        case "cosine":
            return cosine((progress - warmup) / (1 - warmup))
        case "linear":
            return linear((progress - warmup) / (1 - warmup))
        case "constant":
            return 1.0
        case "wsd":
            return cooldown((progress - 1 + config.cooldown_ratio) / config.cooldown_ratio)


def cosine(fall: float) -> float:
    """Half a cosine from 1 to 0: it leaves the peak and arrives at the end slowly.

    Args:
        fall: Share of the way down, in [0, 1].

    Source: Loshchilov & Hutter 2017, eq. 5 without restarts (1608.03983).
    """
    return 0.5 * (1 + math.cos(math.pi * fall))


def linear(fall: float) -> float:
    """A straight line from 1 to 0, the best of the plain ones.

    Args:
        fall: Share of the way down, in [0, 1].

    Source: Defazio et al. 2023 (2310.07831).
    """
    return 1 - fall


def cooldown(fall: float) -> float:
    """One minus a square root, from 1 to 0: fast at first, then slowly to its end.

    Args:
        fall: Share of the way down, in [0, 1]; below 0 it has not begun.

    Source: Hägele et al. 2024, section 3 (2405.18392), who find it better than a line; the name `wsd` is that of Hu et
        al. 2024 (2404.06395).
    """
    return 1 - math.sqrt(max(0.0, fall))
