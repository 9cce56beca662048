"""Progress of a run, in [0, 1] -> fraction of the peak learning rate. Pure functions without state to save."""

import math

from vitreous.optim.config import OptimConfig


def learning_rate_share(progress: float, config: OptimConfig) -> float:
    """Return the fraction of the peak learning rate: a linear warm-up from zero, then `config.schedule`.

    `progress` is the completed fraction of the run, in [0, 1]; larger values count as 1.

    Returns:
        Factor for the learning rate, in [0, 1].

    Source: Goyal et al. 2017 for the warm-up (1706.02677).
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
    """Return half a period of a cosine from 1 to 0, which is flat at both ends.

    `fall` is the position between the peak and the end, in [0, 1].

    Source: Loshchilov & Hutter 2017, eq. 5 without restarts (1608.03983).
    """
    return 0.5 * (1 + math.cos(math.pi * fall))


def linear(fall: float) -> float:
    """Return a straight line from 1 to 0.

    `fall` is the position between the peak and the end, in [0, 1].

    Source: Defazio et al. 2023 (2310.07831), who find it the best of the simple schedules.
    """
    return 1 - fall


def cooldown(fall: float) -> float:
    """Return one minus a square root, from 1 to 0, which falls fast at first and then slowly.

    `fall` is the position between the start and the end of the cool-down, in [0, 1]; it is below 0 before it.

    Source: Hägele et al. 2024, section 3 (2405.18392), who find it better than a line. The name `wsd` is from Hu et al.
        2024 (2404.06395).
    """
    return 1 - math.sqrt(max(0.0, fall))
