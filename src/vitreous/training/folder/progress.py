"""Events of a run -> its progress so far: time left, curves of loss and accuracy, the best evaluation."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from vitreous.wording import duration

_WIDTH = 32
"""Characters of a curve."""
_LEVELS = "▁▂▃▄▅▆▇█"


class RunProgress:
    """A listener that remembers what a view of a running run shows.

    Attributes:
        share: Share of the run that is done, in [0, 1].
        clock: Returns seconds since any fixed moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._restart()

    def _restart(self) -> None:
        self.share = 0.0
        self._newest: Mapping[str, Any] = {}
        self._budget_s = 0.0
        self._began: tuple[float, float] | None = None
        self._curves: dict[str, list[float]] = {"loss": [], "accuracy": [], "validation": []}
        self._validated: Mapping[str, Any] = {}
        self._best: tuple[float, str] = math.inf, ""

    def listen(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Take note of an event."""
        if kind == "member":  # the next run of a series
            self._restart()
        elif kind == "fit":  # also the next stage of a run that pretrains first
            best = self._best
            self._restart()
            self._best, self._budget_s = best, fields["budget_s"]
        elif kind in ("progress", "step"):
            self._newest, self.share = fields, fields["progress"]
            self._began = self._began or (self.clock(), self.share)
            if kind == "step":
                self._add("loss", fields["loss"])
                if "accuracy" in fields:
                    self._add("accuracy", fields["accuracy"])
        elif kind == "evaluation" and "accuracy" in fields:
            self._compare(fields, f"at epoch {fields['epoch']:.1f}")
            if fields["weights"] == "average":
                self._validated = fields
                self._add("validation", fields["accuracy"])
        elif kind == "first_model" and fields["val"] is not None:
            self._compare(fields["val"], "before the first step")

    def time_left(self) -> str:
        """Return the time left by the speed so far; empty if it is not known yet."""
        if self._began is None or self.share - self._began[1] < 0.01 or self.share >= 1:
            return ""
        began_s, began_at = self._began
        return f"{duration((self.clock() - began_s) / (self.share - began_at) * (1 - self.share))} left"

    def headline(self) -> str:
        """Return epoch, speed and time left; with a budget, how much of it is left."""
        left = self.time_left()
        if self._budget_s:
            left_s = max(0.0, self._budget_s - self._newest["elapsed_s"])
            left = f"{duration(left_s)} left of {duration(self._budget_s)}"
        speed = f"{self._newest['images_per_s']:,.0f} images/s"
        return "  ".join(filter(None, (f"epoch {self._newest['epoch']:.1f}", speed, left)))

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, curve and newest value of what is known; the best evaluation is with the last one."""
        if not self._newest:
            return []
        values = {"loss": f"{self._newest['loss']:.3f}"}
        if "accuracy" in self._newest:  # not without labels
            values["accuracy"] = f"{self._newest['accuracy']:.1%}"
        if self._validated:
            values["validation"] = _scores(self._validated)
        if self._best[1]:
            values["validation"] = "; ".join(filter(None, (values.get("validation"), f"best so far {self._best[1]}")))
        return [(name, curve(self._curves[name]), value) for name, value in values.items()]

    def _compare(self, found: Mapping[str, Any], when: str) -> None:
        """Keep the scores if they have the lowest loss, by which `keep_best` chooses, too."""
        loss = found.get("calibrated_loss", found["loss"])
        if loss < self._best[0]:
            self._best = loss, f"{_scores(found)}, {when}"

    def _add(self, name: str, value: float) -> None:
        if math.isfinite(value):
            self._curves[name].append(value)


def curve(values: Sequence[float], width: int = _WIDTH) -> str:
    """Draw numbers as a line of at most `width` characters, each the mean of its share of them; empty below two."""
    if len(values) < 2:
        return ""
    count = min(width, len(values))
    ends = [len(values) * index // count for index in range(count + 1)]
    means = [sum(values[i:j]) / (j - i) for i, j in pairwise(ends)]
    low, high = min(means), max(means)
    return "".join(_LEVELS[round((mean - low) / ((high - low) or 1.0) * (len(_LEVELS) - 1))] for mean in means)


def _scores(found: Mapping[str, Any]) -> str:
    return f"{found['accuracy']:.1%}, loss {found['loss']:.3f}"
