"""`/metrics`: what the parser of Prometheus reads from it, and the conventions for its names."""

import re
from typing import Any

import pytest
from tests.unit.use.serve.conftest import encoded

from vitreous.use.serve.metrics import Metrics

HOSTILE = 'a "quoted" Äpfel\\ \n {b="c"} 1'
UNITS = ("_seconds", "_bytes", "_total", "_images", "_info")


def families(text: str) -> dict[str, Any]:
    """Return the families that Prometheus' own parser finds, by name."""
    parser = pytest.importorskip("prometheus_client.parser")
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def test_parser_reads_the_values_of_a_server(client: Any) -> None:
    client.post("/predict", files=[("a", ("a", encoded())), ("b", ("b", b"no image"))])
    client.get("/nothing")
    found = families(client.get("/metrics").text)
    values = {(s.name, *sorted(s.labels.items())): s.value for family in found.values() for s in family.samples}
    path = ("path", "/predict")
    assert values["vitreous_requests_total", path, ("status", "200")] == 1
    assert values["vitreous_requests_total", ("path", "other"), ("status", "404")] == 1
    assert values["vitreous_request_duration_seconds_count", path] == 1
    assert values["vitreous_request_duration_seconds_bucket", ("le", "+Inf"), path] == 1
    assert 0 < values["vitreous_request_duration_seconds_sum", path] < 60
    assert values["vitreous_images_total", ("model", "tiny run")] == 2
    assert values["vitreous_unreadable_images_total", ("model", "tiny run")] == 1
    assert found["vitreous_request_duration_seconds"].type == "histogram"


def test_buckets_are_cumulative() -> None:
    metrics = Metrics()
    for seconds in (0.002, 0.01, 0.02, 5.0, 70.0):
        metrics.add_request("/predict", 200, seconds)
    family = families(metrics.text(Metrics()))["vitreous_request_duration_seconds"]
    counts = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert counts == {"0.01": 2, "0.03": 3, "0.1": 3, "0.3": 3, "1.0": 3, "3.0": 3, "10.0": 4, "+Inf": 5}
    assert [s.value for s in family.samples if s.name.endswith("_sum")] == [pytest.approx(75.032)]


def test_names_in_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.add("vitreous_images_total", {"model": HOSTILE})
    (sample,) = families(metrics.text(Metrics()))["vitreous_images"].samples
    assert sample.labels == {"model": ascii(HOSTILE)[1:-1]}  # on one line: the name has a line break
    metrics = Metrics()
    metrics.add("vitreous_images_total", {"model": HOSTILE.replace("\n", "")})
    (sample,) = families(metrics.text(Metrics()))["vitreous_images"].samples
    assert sample.labels == {"model": HOSTILE.replace("\n", "")}


def test_names_follow_the_conventions_of_prometheus() -> None:
    text = Metrics().text(Metrics())
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert len(kinds) == 8
    for name, kind in kinds.items():
        assert re.fullmatch("vitreous_[a-z_]+", name)
        assert name.endswith(UNITS)  # base units in the plural
        assert (kind == "counter") is name.endswith("_total")
    helped = re.findall(r"^# HELP (\S+) (.+)\.$", text, re.MULTILINE)
    assert [name for name, _ in helped] == list(kinds)
