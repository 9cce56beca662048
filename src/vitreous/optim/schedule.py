"""Progress of a run, in [0, 1] -> fraction of the peak learning rate. A pure function without state to save."""

import math

from vitreous.optim.config import OptimConfig


def learning_rate_share(progress: float, config: OptimConfig) -> float:
    """Return the fraction of the peak learning rate: a linear warm-up from zero, then `config.schedule`.

    `progress` is the completed fraction of the run, in [0, 1]; larger values count as 1.

    Returns:
        Factor for the learning rate, in [0, 1].

    Source:
        Warm-up: Goyal et al. 2017 (1706.02677). `cosine`: Loshchilov & Hutter 2017, eq. 5 without restarts
        (1608.03983). `linear`: Defazio et al. 2023 (2310.07831), who find it the best of the simple schedules. `wsd`:
        Hu et al. 2024 (2404.06395), with the square root of Hägele et al. 2024, section 3 (2405.18392), who find it
        better than a line.
    """
    warmup, cooldown = config.warmup_ratio, config.cooldown_ratio
    if progress < warmup:
        return progress / warmup
    progress = min(progress, 1.0)
    fall = (progress - warmup) / (1 - warmup)  # position between the peak and the end
    match config.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * fall))
        case "linear":
            return 1 - fall
        case "constant":
            return 1.0
        case "wsd":
            return 1 - math.sqrt(max(0.0, (progress - 1 + cooldown) / cooldown))
