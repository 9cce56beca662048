"""Faithfulness -> a figure of the curves of each protocol, as PNG."""

import io
from itertools import cycle

from vitreous.use.explain.check.faithfulness import Faithfulness
from vitreous.use.explain.check.protocols import PROTOCOLS


def draw_curves(found: Faithfulness) -> bytes:
    """Plot the mean curves of each protocol, a row for each, one line per method and dotted lines for references."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.1 * len(PROTOCOLS) + 0.8), layout="constrained", dpi=110)
    grid = figure.subplots(len(PROTOCOLS), 2, squeeze=False)
    colors = dict(zip((row.name for row in found.rows), cycle(f"C{number}" for number in range(10)), strict=False))
    for (name, protocol), pair in zip(PROTOCOLS.items(), grid, strict=True):
        curves = found.curves[name]
        for which, (axes, title) in enumerate(zip(pair, protocol.curves, strict=True)):
            for row in found.rows:
                style = {"color": "#777777", "linestyle": ":" if row.name == "random" else "--"}
                style = style if row.is_reference else {"color": colors[row.name]}
                axes.plot(curves["x"], curves[row.name][which], label=row.label, linewidth=1.4, **style)
            axes.set_title(f"{protocol.title}: {title}", fontsize=9)
            axes.set_xlabel(f"share of the {protocol.units}", fontsize=9)
            axes.set_ylabel(protocol.follows, fontsize=9)
            axes.set_xlim(0, 1)
            axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
