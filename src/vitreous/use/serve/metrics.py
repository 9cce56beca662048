"""Counts of a server -> the text that Prometheus reads."""

import json
from collections import defaultdict
from collections.abc import Mapping

from vitreous.printable import printable

_LIMITS_S = {"0.01": 0.01, "0.03": 0.03, "0.1": 0.1, "0.3": 0.3, "1": 1.0, "3": 3.0, "10": 10.0, "+Inf": float("inf")}
_FAMILIES = {
    "vitreous_requests_total": ("counter", "Requests by path and status."),
    "vitreous_request_seconds": ("histogram", "Time from a request to its complete answer."),
    "vitreous_images_total": ("counter", "Images in requests, by model."),
    "vitreous_unreadable_images_total": ("counter", "Images that could not be read, by model."),
    "vitreous_batches_total": ("counter", "Batches that were computed."),
    "vitreous_batch_images_total": ("counter", "Images in these batches."),
    "vitreous_waiting_images": ("gauge", "Images that wait, are decoded or are computed."),
    "vitreous_model_info": ("gauge", "1 for the version of each model that is served."),
}


class Metrics:
    """Values by family, suffix and labels. Only the thread of the event loop may change them."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[str, str, str], float] = defaultdict(float)

    def add(self, family: str, labels: Mapping[str, object], amount: float = 1.0, suffix: str = "") -> None:
        """Add to a value."""
        text = ",".join(f"{name}={json.dumps(printable(str(value)))}" for name, value in labels.items())
        self._values[family, suffix, f"{{{text}}}" if text else ""] += amount

    def add_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request to a route."""
        self.add("vitreous_requests_total", {"path": path, "status": status})
        for text, limit in _LIMITS_S.items():
            self.add("vitreous_request_seconds", {"path": path, "le": text}, seconds <= limit, "_bucket")
        self.add("vitreous_request_seconds", {"path": path}, seconds, "_sum")
        self.add("vitreous_request_seconds", {"path": path}, 1.0, "_count")

    def text(self, now: "Metrics") -> str:
        """Return the text of these values and of those that are known only now."""
        values, lines = self._values | now._values, []
        for family, (kind, meaning) in _FAMILIES.items():
            own = [f"{name}{suffix}{labels} {v:.15g}" for (name, suffix, labels), v in values.items() if name == family]
            lines += [f"# HELP {family} {meaning}", f"# TYPE {family} {kind}", *own]
        return "\n".join([*lines, ""])
