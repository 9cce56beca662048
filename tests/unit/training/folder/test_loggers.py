"""Trackers get the numbers of each record under stable names, and their packages are imported only on request."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vitreous.errors import ConfigError, MissingDependencyError, TrackerWarning
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.loggers import TRACKERS, tracked, with_tracker


class Kept:
    """A tracker that stores what it gets."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.logged.append((dict(numbers), step))

    def close(self, failed: bool) -> None:
        self.logged.append(({}, -2 if failed else -1))


def test_numbers_of_a_record_are_passed_on_by_kind_and_name() -> None:
    kept, kinds = Kept(), []
    listen = with_tracker(lambda kind, fields: kinds.append(kind), kept)
    listen("step", {"step": 7, "loss": 0.5, "accuracy": 1, "note": "text", "flag": True})
    listen("evaluation", {"step": 9, "weights": "average", "accuracy": 0.75, "interval_95": [0.5, 0.875]})
    listen("reading", {"done": 3, "total": 9})
    assert kept.logged == [
        ({"step/loss": 0.5, "step/accuracy": 1.0}, 7),
        (
            {
                "evaluation/average/accuracy": 0.75,
                "evaluation/average/interval_95/0": 0.5,
                "evaluation/average/interval_95/1": 0.875,
            },
            9,
        ),
    ]
    assert kinds == ["step", "evaluation", "reading"]


def test_without_a_tracker_the_listener_is_returned_unchanged(tmp_path: Path, config: RunConfig) -> None:
    def listener(kind: str, fields: Mapping[str, Any]) -> None:
        pass

    with tracked(listener, tmp_path, config) as same:
        assert same is listener


def test_tracker_is_closed_even_if_the_run_fails(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    monkeypatch.setitem(TRACKERS, "wandb", lambda folder, name, values: kept)
    watched = replace(config, train=replace(config.train, logger="wandb"))

    def crash() -> None:
        with tracked(lambda kind, fields: None, tmp_path, watched) as listen:
            listen("step", {"step": 3, "loss": 2})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert kept.logged == [({"step/loss": 2.0}, 3), ({}, -2)]


def test_run_goes_on_without_a_tracker_that_fails(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Failing(Kept):
        def log(self, numbers: Mapping[str, float], step: int) -> None:
            calls.append(step)
            raise ConnectionError("server is\ndown")

    monkeypatch.setitem(TRACKERS, "wandb", lambda folder, name, values: Failing())
    watched = replace(config, train=replace(config.train, logger="wandb"))
    seen: list[str] = []
    with tracked(lambda kind, fields: seen.append(kind), tmp_path, watched) as listen:
        with pytest.warns(TrackerWarning) as caught:
            listen("step", {"step": 3, "loss": 2})
        listen("step", {"step": 4, "loss": 1})
    assert (calls, seen) == ([3], ["step", "step"])
    assert [str(warning.message) for warning in caught] == [
        "train.logger: the tracker failed (ConnectionError: server is down); the run goes on without it, and "
        "records.jsonl is complete"
    ]


def test_tracker_that_cannot_start_is_an_error(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, name: str, values: Mapping[str, Any]) -> Kept:
        raise PermissionError("no API key")

    monkeypatch.setitem(TRACKERS, "mlflow", refuse)
    watched = replace(config, train=replace(config.train, logger="mlflow"))
    with pytest.raises(ConfigError) as caught, tracked(lambda kind, fields: None, tmp_path, watched):
        pass
    assert str(caught.value) == (
        "train.logger=mlflow: could not start (PermissionError: no API key); check its settings, or use "
        "train.logger=none"
    )


@pytest.fixture
def config() -> RunConfig:
    shape = {"data.img_size": (8, 8), "data.in_chans": 1, "data.num_classes": 3, "data.source": "digits"}
    model = {"model.patch_size": 4, "model.embed_dim": 8, "model.depth": 1, "model.num_heads": 2}
    return keys.assemble("by-hand", shape | model)


@pytest.mark.parametrize("name", TRACKERS)
def test_missing_package_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError) as caught:
        TRACKERS[name](tmp_path, "run-3", {})
    assert str(caught.value) == (f"train.logger={name}: needs {name}, which is not installed; pip install {name}")


def test_no_tracker_package_is_imported_without_a_request() -> None:
    script = (
        "import sys, vitreous.training.folder.loggers\n"
        "names = 'tensorboard', 'torch.utils.tensorboard', 'wandb', 'mlflow', 'trackio'\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
