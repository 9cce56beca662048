"""`vitreous env`: facts on aligned lines, then what is slow; or one JSON document."""

import json
from collections.abc import Callable

import pytest
from tests.unit.cli.conftest import Said

from vitreous.training.measure import environment

Cli = Callable[..., Said]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "products_per_s", lambda device, precision: 5e9)


def test_facts_are_followed_by_what_is_slow(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_slow", lambda found: iter(["threads=64: too many; set OMP_NUM_THREADS=2"]))
    said = cli("env")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("vitreous     0.1.0")
    assert any(line.startswith("speed, cpu   fp32 5, ") for line in lines)
    assert lines[-2:] == ["slow:", "1. threads=64: too many; set OMP_NUM_THREADS=2"]


def test_nothing_slow_is_said_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_slow", lambda found: iter([]))
    assert cli("env").out.endswith("\n\nnothing here slows training\n")


def test_json_has_the_same_facts(cli: Cli) -> None:
    said = cli("env", "--json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert {"software", "hardware", "memory", "cache", "codecs", "products_per_s", "slow"} <= set(found)
