"""Scores of methods -> Faithfulness: which method to trust, as tables, a figure and JSON; this JSON -> its verdict."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import cycle
from math import isfinite
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous import atomic
from vitreous.errors import DamagedFileError
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.native import fingerprint
from vitreous.tensor_file import parsing
from vitreous.use.explain.check.intervals import Estimate, estimate, resampled_means
from vitreous.use.explain.check.protocols import LOWER_IS_BETTER, PROTOCOLS
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.pictures.figure import encoded
from vitreous.wording import listed, plural

FILE = "faithfulness.json"
VERSION = 1
DECISIVE = "removal"
"""The measure that chooses the method: the only one that shows the model nothing but parts of the image."""
RANDOM = "random"
MOST_SIMILAR = 0.5
"""Rank correlation with maps of shuffled weights above which a method hardly depends on the weights."""
_SHAPLEY = {"shapley": "Shapley values ↑"}
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Measured:
    """The score of a method by one measure.

    Attributes:
        score: Mean over the images, with its 95% interval.
        above_random: How much better it is than a random order, positive if better; the intervals of all methods
            together cover with a probability of 95%.
        below_best: How much worse it is than the best method, positive if worse; in the same way. None for the best.
    """

    score: Estimate
    above_random: Estimate
    below_best: Estimate | None


@dataclass(frozen=True)
class Row:
    """A method, or an order to compare with.

    Attributes:
        name: Name of the method.
        label: Name for tables.
        is_reference: The order does not depend on the model.
        passes: Cost of a map in forward passes.
        similarity: Mean rank correlation of its maps with those of the model with shuffled weights; None for
            references.
        measured: What was measured, by measure.
    """

    name: str
    label: str
    is_reference: bool
    passes: float
    similarity: float | None
    measured: Mapping[str, Measured]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How faithful explanations of a model are.

    Attributes:
        facts: What was checked: data, number of images, seed, precision, fingerprint of the weights, versions, …
        rows: The methods, then the references.
        curves: For each protocol the shares of changed pixels or patches `x`, and for each method the mean of both
            curves.
        notes: What was left out, and why; one sentence each.
    """

    facts: Mapping[str, Any]
    rows: Sequence[Row]
    curves: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str] = ()

    @cached_property
    def best(self) -> Row:
        """The most faithful method by removal of tokens."""
        return next(row for row in self.rows if not row.is_reference and row.measured[DECISIVE].below_best is None)

    @property
    def smallest_difference(self) -> float:
        """Smallest difference between two methods that can be distinguished by removal of tokens."""
        found = [row.measured[DECISIVE].below_best for row in self.rows]
        return float(np.median([each.half_width for each in found if each is not None]))

    @property
    def sentences(self) -> tuple[str, str]:
        """Which method to trust, and the smallest difference that this number of images can show."""
        best, num_methods = self.best.measured[DECISIVE], sum(not row.is_reference for row in self.rows)
        chance = next(row for row in self.rows if row.name == RANDOM).measured[DECISIVE].score.mean
        score = f"{best.score.mean:.2f}, 95% interval {best.score.low:.2f} to {best.score.high:.2f}"
        rank = f"is the most faithful of {num_methods} methods for" if num_methods > 1 else "was checked on"
        verdict = f"by token removal (area {score}; random order {chance:.2f}); {self._verdict()}"
        count = plural(self.facts["num_images"], "image")
        limit = f"With {count}, a difference of less than {self.smallest_difference:.2f} cannot be detected."
        return f"{self.best.label} {rank} this model {verdict}.", limit

    def _verdict(self) -> str:
        """Return what the difference to random, to other methods and to fixed orders means."""
        if self.best.measured[DECISIVE].above_random.low <= 0:
            return "it is not distinguishable from a random order, so do not trust any of them"
        others = [row for row in self.rows if row is not self.best and row.name != RANDOM]
        behind = {row.label: row.measured[DECISIVE].below_best for row in others}
        better = [label for label, found in behind.items() if found is not None and found.high < 0]
        ties = [label for label, found in behind.items() if found is not None and found.low <= 0 <= found.high]
        text = "it is better than a random order"
        if better:
            return f"{text}, but {better[0]}, which ignores the model, is better still"
        if ties:
            return f"{text}, but not distinguishable from {listed(ties, most=8)}"
        return f"{text}, and distinguishable from {'every other method' if len(others) > 1 else listed(list(behind))}"

    @property
    def warnings(self) -> list[str]:
        """A sentence on each method whose maps do not depend on what the model has learned."""
        return [
            f"{row.label} hardly changes when the weights are shuffled (rank correlation {row.similarity:.2f}), so it "
            "shows little of what the model has learned"
            for row in self.rows
            if row.similarity is not None and row.similarity > MOST_SIMILAR
        ]

    def tables(self) -> list[list[tuple[str, ...]]]:
        """Return tables of text with a row of headings: tests that change pixels, then those that change patches."""
        tables = []
        for units, own in (("pixels", dict[str, str]()), ("patches", _SHAPLEY)):
            found = [protocol.measures for protocol in PROTOCOLS.values() if protocol.units == units]
            columns = {
                name: text for each in (*found, own) for name, text in each.items() if name in self.best.measured
            }
            more = ("shuffled weights", "forward passes") if own else ()
            rows: list[tuple[str, ...]] = [("method", *columns.values(), *more)]
            for row in self.rows:
                cells = [_cell(row, name) for name in columns]
                if more and row.similarity is not None:
                    cells += [f"{row.similarity:.2f}", f"{row.passes:.1f}"]
                rows.append((row.label, *cells, *[""] * (len(rows[0]) - len(cells) - 1)))
            tables.append(rows)
        return tables

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        methods = {row.name: {key: value for key, value in asdict(row).items() if key != "name"} for row in self.rows}
        words = {"best": self.best.name, "sentences": list(self.sentences), "notes": [*self.notes, *self.warnings]}
        return {"version": VERSION, **self.facts, **words, "methods": methods, "curves": self.curves}

    def save(self, folder: Path) -> list[Path]:
        """Write `faithfulness.json` and `curves.png` into a folder, and return their paths.

        Raises:
            SaveError: The folder or a file could not be written; an earlier version of a file is then still there.
        """
        paths = [folder / FILE, folder / "curves.png"]
        labels = {row.name: row.label for row in self.rows}
        picture = draw_curves(self.curves, labels, [row.name for row in self.rows if row.is_reference])
        atomic.create_folder(folder)
        atomic.write_bytes(paths[1], picture)
        atomic.write_json(paths[0], self.as_dict())
        return paths


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


def compare_scores(
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]], methods: Sequence[str], seed: int
) -> dict[str, dict[str, Measured]]:
    """Return what was measured, by method and measure.

    There is one score per image, `[images]`, for each measure and each of `methods` or the references.
    """
    found: dict[str, dict[str, Measured]] = {}
    for measure, columns in scores.items():
        names, sign = list(columns), -1.0 if measure in LOWER_IS_BETTER else 1.0
        values = np.stack([columns[name] for name in names], axis=1)
        means = resampled_means(values, seed)
        at_best = max((names.index(name) for name in methods), key=lambda column: sign * values[:, column].mean())
        at_random = names.index(RANDOM)
        for column, name in enumerate(names):
            above, below = (
                estimate(sign * (values[:, a] - values[:, b]), sign * (means[:, a] - means[:, b]), max(1, count))
                for a, b, count in ((column, at_random, len(methods)), (at_best, column, len(methods) - 1))
            )
            score = estimate(values[:, column], means[:, column])
            found.setdefault(name, {})[measure] = Measured(score, above, None if column == at_best else below)
    return found


@dataclass(frozen=True)
class LastCheck:
    """The most faithful method by the last check, whether it beats a random order, and the number of images."""

    best: str
    is_better_than_random: bool
    num_images: int

    @property
    def sentence(self) -> str:
        """The result in words."""
        where = f"in the last check of this model ({plural(self.num_images, 'image')})"
        if not self.is_better_than_random:
            return f"no method was distinguishable from a random order {where}"
        return f"{METHODS[self.best].label} was the most faithful method {where}"


def read_last_check(run: Path, model: VisionTransformer) -> LastCheck | None:
    """Return the result of `vitreous explain RUN --check`; None if there is none of these weights and known methods.

    Raises:
        DamagedFileError: The file is not what a check writes.
    """
    path, way_out = run / FILE, f"delete it, or repeat `vitreous explain {quote(str(run))} --check`"
    if not path.is_file():
        return None
    if path.stat().st_size > _MOST_BYTES:
        raise DamagedFileError(f"{path}: has {path.stat().st_size:,} bytes, more than a check writes; {way_out}")
    with parsing(path, way_out):
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        above = float(found["methods"][found["best"]]["measured"]["removal"]["above_random"]["low"])
        last = LastCheck(str(found["best"]), above > 0 and isfinite(above), int(found["num_images"]))
        weights = found["weights"]
    return last if weights == fingerprint(model) and last.best in METHODS else None


def _cell(row: Row, measure: str) -> str:
    """Return a mean and half of the width of its interval; `*` marks the best method."""
    found = row.measured[measure]
    mark = " *" if found.below_best is None else ""
    return f"{found.score.mean:.2f} ± {found.score.half_width:.2f}{mark}"
