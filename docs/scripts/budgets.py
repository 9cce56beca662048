"""Stored rows of `benchmarks/small_data.py` -> `budgets.svg`: accuracy by the length of the budget.

Command: `python docs/scripts/budgets.py`
"""

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from small_data import by_budget  # noqa: E402

STORED = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores" / "small_data.json"
COLORS = {"fashion-mnist": "#0072b2", "cifar10": "#d55e00", "sign-digits": "#009e73", "clothing-96px": "#7a3e9d"}
MARKERS = {"S": ("o-", "convolutions first"), "P": ("s--", "plain patches")}


def draw(runs: dict[str, dict[str, Any]]) -> Figure:
    """Draw a line per data set of `COLORS` and track through the mean accuracies, over the minutes of the budget."""
    found = {key: budgets for key, budgets in by_budget(runs).items() if key[0] in COLORS}
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for (case, track), budgets in found.items():
        accuracies = [100 * mean(run["test"]["accuracy"] for run in of_budget) for of_budget in budgets.values()]
        style, stem = MARKERS[track]
        axes.plot(list(budgets), accuracies, style, color=COLORS[case], label=f"{case}, {stem}")
    ticks = sorted({minutes for budgets in found.values() for minutes in budgets})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{minutes:g}" for minutes in ticks])
    axes.minorticks_off()
    axes.set(xlabel="budget in minutes", ylabel="test accuracy in %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def main() -> None:
    """Write the picture into `docs/`; without the date, so that the same picture gives the same file."""
    runs = json.loads(STORED.read_text(encoding="utf-8"))["runs"]
    with mpl.rc_context({"svg.hashsalt": "vitreous", "svg.fonttype": "none"}):
        draw(runs).savefig(ROOT / "docs" / "budgets.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
