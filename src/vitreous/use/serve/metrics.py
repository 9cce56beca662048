"""Counts of a server -> the text that Prometheus reads."""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate

from vitreous.wording import printable

_LIMITS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_TIMES = "vitreous_request_duration_seconds"
_FAMILIES = {
    "vitreous_requests_total": ("counter", "Requests by path and status."),
    _TIMES: ("histogram", "Time from a request to its complete answer."),
    "vitreous_images_total": ("counter", "Images in requests, by model."),
    "vitreous_unreadable_images_total": ("counter", "Images that could not be read, by model."),
    "vitreous_batches_total": ("counter", "Batches that were computed."),
    "vitreous_batch_images_total": ("counter", "Images in these batches."),
    "vitreous_waiting_images": ("gauge", "Images that wait, are decoded or are computed."),
    "vitreous_model_info": ("gauge", "1 for each version of each model that is served."),
}


class Metrics:
    """Values by family and labels. Only the thread of the event loop may change them."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[str, tuple[tuple[str, object], ...]], float] = defaultdict(float)
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_LIMITS_S) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, family: str, labels: Mapping[str, object], amount: float = 1.0) -> None:
        """Add to a value."""
        self._values[family, tuple(labels.items())] += amount

    def add_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request to a route."""
        self.add("vitreous_requests_total", {"path": path, "status": status})
        self._counts[path][bisect_left(_LIMITS_S, seconds)] += 1
        self._seconds[path] += seconds

    def text(self, now: "Metrics") -> str:
        """Return the text of these values and of those that are known only now."""
        lines: defaultdict[str, list[str]] = defaultdict(list)
        for (family, labels), value in (self._values | now._values).items():
            lines[family].append(_line(family, dict(labels), value))
        for path, counts in self._counts.items():
            for limit, count in zip((*map(str, _LIMITS_S), "+Inf"), accumulate(counts), strict=True):
                lines[_TIMES].append(_line(f"{_TIMES}_bucket", {"path": path, "le": limit}, count))
            lines[_TIMES].append(_line(f"{_TIMES}_sum", {"path": path}, self._seconds[path]))
            lines[_TIMES].append(_line(f"{_TIMES}_count", {"path": path}, sum(counts)))
        heads = {name: f"# HELP {name} {meaning}\n# TYPE {name} {kind}" for name, (kind, meaning) in _FAMILIES.items()}
        return "\n".join([line for name, head in heads.items() for line in (head, *lines[name])] + [""])


def _line(name: str, labels: Mapping[str, object], value: float) -> str:
    """Return a line. Prometheus knows only the escapes of JSON for quotes and backslashes."""
    pairs = (f"{key}={json.dumps(printable(str(text)), ensure_ascii=False)}" for key, text in labels.items())
    joined = ",".join(pairs)
    return f"{name}{{{joined}}} {value:.15g}" if joined else f"{name} {value:.15g}"
