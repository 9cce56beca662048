"""Learning-rate schedules -> `schedules.svg`, drawn with the functions that training uses.

Command: `python docs/scripts/schedules.py`
"""

from pathlib import Path
from typing import get_args

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from vitreous.optim.config import OptimConfig, Schedule
from vitreous.optim.schedule import learning_rate_share

COLORS = ("#0072b2", "#d55e00", "#009e73", "#7a3e9d")
STYLES = ("-", "--", ":", "-.")


def draw() -> Figure:
    """Draw one line per schedule, with the default warm-up and cool-down."""
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.subplots()
    progress = np.linspace(0, 1, 501)
    for schedule, color, style in zip(get_args(Schedule), COLORS, STYLES, strict=True):
        config = OptimConfig(schedule=schedule)
        shares = [learning_rate_share(float(at), config) for at in progress]
        axes.plot(progress, shares, style, color=color, linewidth=2, label=schedule)
    axes.set(xlabel="progress of the run", ylabel="ratio to optim.lr", xlim=(0, 1), ylim=(0, 1.05))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.1, 0.05))
    return figure


def main() -> None:
    """Write the picture into `docs/`; without the date, so that the same picture gives the same file."""
    with mpl.rc_context({"svg.hashsalt": "vitreous", "svg.fonttype": "none"}):
        draw().savefig(Path(__file__).parents[1] / "schedules.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
