"""Mean curves of each protocol -> a figure, as PNG."""

from collections.abc import Collection, Mapping
from itertools import cycle
from typing import Any

from vitreous.use.explain.check.protocols import PROTOCOLS
from vitreous.use.explain.pictures.figure import encoded


def draw_curves(
    curves: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str], references: Collection[str]
) -> bytes:
    """Plot a row for each protocol, with one line for each method, and broken lines for references, by their labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.1 * len(PROTOCOLS) + 0.8), layout="constrained", dpi=110)
    grid = figure.subplots(len(PROTOCOLS), 2, squeeze=False, sharey="row")
    colors = dict(zip(labels, cycle(f"C{number}" for number in range(10)), strict=False))
    for (name, protocol), pair in zip(PROTOCOLS.items(), grid, strict=True):
        for which, (axes, title) in enumerate(zip(pair, protocol.curves, strict=True)):
            for method, label in labels.items():
                style = {"color": "#777777", "linestyle": ":" if method == "random" else "--"}
                style = style if method in references else {"color": colors[method]}
                axes.plot(curves[name]["x"], curves[name][method][which], label=label, linewidth=1.4, **style)
            axes.set_title(f"{protocol.title}: {title}", fontsize=9)
            axes.set_xlabel(f"share of the {protocol.units}", fontsize=9)
            axes.set_ylabel(protocol.follows, fontsize=9)
            axes.set_xlim(0, 1)
            axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return encoded(figure)
