"""Numbers of the parts of an anatomy -> matplotlib figures, one a part."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, count_labels, having
from vitreous.use.explain.anatomy.ablation import Loss
from vitreous.use.explain.anatomy.weights import Filters
from vitreous.use.explain.sample import as_colors
from vitreous.wording import shortened

if TYPE_CHECKING:  # takes half a second to import, so it is imported when the first figure is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FAINT, _INK, _BLUE = "#b0b0b0", "#222222", "#1f77b4"
_DEPTH = "after block (0: before the first)"
_MOST_COLORS = 10
"""Classes with a color of their own, the largest ones; other images are gray."""
_MOST_THUMBNAILS = 150
_MOST_CELLS = 9
"""Position embeddings along each side whose similarity is shown."""


def draw_filters(found: Filters) -> "Figure":
    """Draw each filter; gray is 0, and each filter is scaled by its largest absolute value."""
    largest = np.abs(found.images).max(axis=(1, 2, 3), keepdims=True)
    scaled = found.images / np.where(largest > 0, largest, 1)
    picture = _mosaic(as_colors(np.round(127.5 + 127.5 * scaled).astype(np.uint8)), 7, 255)
    figure, (axes,) = _drawing(8.0, 8.0 * len(picture) / picture.shape[1])
    axes.set_axis_off()
    axes.imshow(picture)
    return figure


def draw_positions(similarity: NDArray[np.float64]) -> "Figure":
    """Draw, for some cells of the grid, the similarity of their embedding to those of all cells."""
    sides = similarity.shape[:2]
    rows, columns = (np.unique(np.linspace(0, n - 1, min(n, _MOST_CELLS)).round().astype(int)) for n in sides)
    picture = _mosaic(similarity[rows][:, columns].reshape(-1, *sides), len(columns), np.nan)
    figure, (axes,) = _drawing(7.5, 6.5 * len(picture) / picture.shape[1])
    axes.set_axis_off()
    drawn = axes.imshow(picture, vmin=min(0.0, float(similarity.min())), vmax=1.0)
    figure.colorbar(drawn, label="cosine similarity", shrink=0.8)
    return figure


def draw_distances(mean: NDArray[np.float32], uniform: float) -> "Figure":
    """Plot the mean distance of each head, by block; a line shows attention that is equal everywhere."""
    figure, (axes,) = _drawing(7.5, 3.6)
    blocks = np.arange(1, len(mean) + 1)
    axes.axhline(uniform, color=_FAINT, linestyle=":", label="equal attention to all patches")
    axes.plot(np.repeat(blocks, mean.shape[1]), mean.ravel(), "o", color=_BLUE, alpha=0.7, label="one head")
    axes.plot(blocks, mean.mean(axis=1), color=_INK, linewidth=1, label="mean of the heads")
    _finish(axes, "block", "attention distance (px)", blocks)
    axes.set_ylim(0, 1.08 * max(uniform, float(mean.max())))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def draw_similarity(similarity: NDArray[np.float32]) -> "Figure":
    """Plot the mean similarity of the patches of an image by depth, with the middle 90% of the images."""
    figure, (axes,) = _drawing(7.5, 3.2)
    depths = np.arange(similarity.shape[1])
    low, high = np.quantile(similarity, (0.05, 0.95), axis=0)
    axes.fill_between(depths, low, high, color=_BLUE, alpha=0.2, linewidth=0, label="90% of the images")
    axes.plot(depths, similarity.mean(axis=0), "o-", color=_BLUE, markersize=4, label="mean of the images")
    _finish(axes, _DEPTH, "cosine between patches", depths)
    axes.set_ylim(min(0.0, float(low.min())), 1.02)
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_outliers(outliers: NDArray[np.bool_]) -> "Figure":
    """Plot the share of outliers by depth, and where they are in the depth that has most of them."""
    figure, (left, right) = _drawing(9.0, 3.2, (2, 1))
    shares = outliers.mean(axis=(0, 2, 3))
    left.bar(np.arange(len(shares)), 100 * shares, color=_BLUE)
    _finish(left, _DEPTH, "outlier patches (%)", np.arange(len(shares)))
    left.set_ylim(0, max(1.0, 110 * float(shares.max())))
    where = 100 * outliers[:, shares.argmax()].mean(axis=0)
    right.set_axis_off()
    shown = right.imshow(where, cmap="magma", vmin=0, vmax=max(1.0, float(where.max())))
    depth = f"after block {shares.argmax()}" if shares.argmax() else "before the first block"
    right.set_title(f"where, {depth} (% of the images)", fontsize=9)
    figure.colorbar(shown, ax=right, shrink=0.8)
    return figure


def draw_path(
    points: NDArray[np.float64], shares: NDArray[np.float64], labels: LabelArray, classes: Sequence[str]
) -> "Figure":
    """Draw how the mean of each class moves from depth to depth; the last point is the largest."""
    figure, (axes,) = _drawing(7.5, 5.0)
    for number, color in _colors(labels, len(classes)).items():
        across, up = points[having(labels, number)].mean(axis=0).T
        axes.plot(across, up, color=color, linewidth=1, label=_name(classes[number]))
        axes.scatter(across, up, color=color, s=np.linspace(6, 60, len(up)), linewidths=0)
    _finish(axes, f"first component ({shares[0]:.0%} of the variance)", f"second component ({shares[1]:.0%})")
    _legend(axes)
    return figure


def draw_map(
    maps: Mapping[str, NDArray[np.float64]],
    pictures: NDArray[np.uint8],
    labels: LabelArray,
    classes: Sequence[str],
) -> "Figure":
    """Draw images as points in two dimensions, colored by class, with thumbnails where there is room for them."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure, drawn = _drawing(9.0, 8.0 * len(maps), rows=len(maps))
    colors, zoom = _colors(labels, len(classes)), 34 / max(pictures.shape[1:3])
    for axes, (title, points) in zip(drawn, maps.items(), strict=True):
        axes.scatter(points[:, 0], points[:, 1], s=14, color=_FAINT, linewidths=0)
        frames = np.full(len(points), _FAINT)
        for number, color in colors.items():
            own = having(labels, number)
            across, up = points[own].T
            axes.scatter(across, up, s=14, color=color, linewidths=0, label=_name(classes[number]))
            frames[own] = color
        for position in _apart(points):
            picture = OffsetImage(pictures[position], zoom=zoom, interpolation="nearest" if zoom > 1 else "antialiased")
            frame = {"edgecolor": str(frames[position]), "linewidth": 2}
            axes.add_artist(AnnotationBbox(picture, points[position], pad=0.05, bboxprops=frame))
        axes.set_title(title, fontsize=10)
        axes.set(xticks=(), yticks=())
    _legend(drawn[0])
    return figure


def draw_removal(heads: Loss, blocks: Loss) -> "Figure":
    """Draw the accuracy lost without each head as a grid, and without each block as bars with intervals."""
    depth, count = heads.lost.shape
    figure, (left, right) = _drawing(9.5, max(2.6, 0.3 * depth + 1.2), (1.4, 1))
    largest = max(1.0, 100 * float(np.abs(heads.lost).max()))
    shown = left.imshow(100 * heads.lost, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
    for block, head in np.argwhere(heads.is_clear):
        is_dark = abs(100 * heads.lost[block, head]) > 0.6 * largest
        left.text(head, block, "•", ha="center", va="center", fontsize=12, color="white" if is_dark else _INK)
    left.set_xticks(range(count), list(map(str, range(1, count + 1))))
    left.set_yticks(range(depth), list(map(str, range(1, depth + 1))))
    left.set(xlabel="head", ylabel="block")
    left.set_title("accuracy lost without each head (points)", fontsize=10)
    figure.colorbar(shown, ax=left)
    numbers, errors = np.arange(1, depth + 1), 100 * np.abs(blocks.intervals.T - blocks.lost)
    right.barh(numbers, 100 * blocks.lost, xerr=errors, color="#b2182b", alpha=0.7, ecolor=_INK, capsize=2)
    right.axvline(0, color=_INK, linewidth=0.8)
    _finish(right, "", "block")
    right.set_title("accuracy lost without each block (points)", fontsize=10)
    right.set(yticks=numbers, ylim=(depth + 0.5, 0.5))
    return figure


def _drawing(
    width: float, height: float, ratios: Sequence[float] = (1,), rows: int = 1
) -> tuple["Figure", Sequence["Axes"]]:
    """Create a figure and its axes, of these relative widths, or one above the other; sizes are in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, len(ratios), squeeze=False, width_ratios=ratios).ravel().tolist()


def _mosaic(pictures: NDArray[Any], columns: int, background: float) -> NDArray[Any]:
    """Arrange pictures of one size in rows, because one large picture is drawn much faster than many axes."""
    height, width = pictures.shape[1:3]
    rows, columns, gap = -(-len(pictures) // columns), min(columns, len(pictures)), -(-height // 8)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *pictures.shape[3:])
    canvas = np.full(shape, background, dtype=pictures.dtype)
    for number, picture in enumerate(pictures):
        top, left = (place * (side + gap) for place, side in zip(divmod(number, columns), (height, width), strict=True))
        canvas[top : top + height, left : left + width] = picture
    return canvas


def _finish(axes: "Axes", x: str, y: str, ticks: NDArray[np.int64] | None = None) -> None:
    axes.set(xlabel=x, ylabel=y)
    if ticks is not None:
        axes.set_xticks(ticks[:: -(-len(ticks) // 25)])
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: "Axes") -> None:
    legend = axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)  # class names may contain a $


def _name(name: str) -> str:
    """Return a class name for a legend, in which matplotlib leaves out labels that begin with `_`."""
    short = shortened(name, 24)
    return f" {short}" if short.startswith("_") else short


def _colors(labels: LabelArray, num_classes: int) -> dict[int, str]:
    """Return the colors of the largest classes, by class number."""
    counts = count_labels(labels, num_classes)
    largest = np.sort(np.argsort(-counts, kind="stable")[:_MOST_COLORS])
    return {int(number): f"C{place}" for place, number in enumerate(largest) if counts[number]}


def _apart(points: NDArray[np.float64]) -> list[int]:
    """Return which points get a thumbnail: those that are far enough from all earlier ones."""
    spread = np.ptp(points, axis=0)
    places = (points - points.min(axis=0)) / np.where(spread > 0, spread, 1)
    kept = list[int]()
    for position, place in enumerate(places):
        if len(kept) < _MOST_THUMBNAILS and (np.abs(places[kept] - place).max(axis=1) > 0.055).all():
            kept.append(position)
    return kept
