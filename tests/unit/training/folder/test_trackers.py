"""Trackers of the real packages, offline: what a run logs can be read with the package; skipped without it."""

import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.loggers import tracked

# The packages warn of their own affairs.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep everything that the packages write below `tmp_path`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run, with a name that trackers may not like as an id."""
    made = tmp_path / "cats & dogs: #1"
    made.mkdir()
    return made


def log_a_run(folder: Path, logger: str) -> None:
    """Log two steps; then resume the run, and log the third step and an evaluation."""
    shape = {"data.img_size": (8, 8), "data.in_chans": 1, "data.num_classes": 3, "data.source": "digits"}
    model = {"model.patch_size": 4, "model.embed_dim": 8, "model.depth": 1, "model.num_heads": 2}
    config: RunConfig = keys.assemble("by-hand", shape | model | {"train.logger": logger})
    with tracked(lambda kind, fields: None, folder, config) as listen:
        listen("step", {"step": 1, "loss": 2.5})
        listen("step", {"step": 2, "loss": 1.5})
    measured = replace(config, data=replace(config.data, mean=(0.5,), std=(0.25,)))
    with tracked(lambda kind, fields: None, folder, measured) as listen:
        listen("step", {"step": 3, "loss": 0.5})
        listen("evaluation", {"step": 3, "weights": "average", "accuracy": 0.75, "interval_95": [0.5, float("nan")]})


def wait_for(content: bytes, file: Path) -> None:
    """Wait until a file has this content, since wandb's own process writes it a moment later."""
    for _ in range(600):
        if content in file.read_bytes():
            return
        time.sleep(0.1)
    raise AssertionError(f"{content!r} is not in {file}")


def test_tensorboard_reads_the_curves(folder: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    log_a_run(folder, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("step/loss")] == [(1, 2.5), (2, 1.5), (3, 0.5)]
    assert [event.value for event in found.Scalars("evaluation/average/accuracy")] == [0.75]
    assert b"data.source: digits" in found.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_wandb_writes_both_parts_of_a_resumed_run_under_one_id(folder: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    log_a_run(folder, "wandb")
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.stem for file in files}) == 1
    wait_for(b"digits", files[0])
    wait_for(b"accuracy", files[1])


def test_mlflow_continues_a_resumed_run(folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    with mlflow.start_run() as outer:  # that of a notebook, say
        log_a_run(folder, "mlflow")
        assert mlflow.active_run().info.run_id == outer.info.run_id
    client = mlflow.MlflowClient()
    (found,) = [run for run in client.search_runs(["0"]) if run.info.run_name == folder.name]
    history = client.get_metric_history(found.info.run_id, "step/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.5), (2, 1.5), (3, 0.5)]
    assert found.data.metrics["evaluation/average/accuracy"] == 0.75
    assert (found.data.params["data.source"], found.info.status) == ("digits", "FINISHED")


def test_trackio_continues_a_resumed_run(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    log_a_run(folder, "trackio")
    (file,) = (tmp_path / "trackio").glob("vitreous*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step, id").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    logged = [(step, json.loads(metrics)) for _, step, metrics in rows]
    assert [(step, found["step/loss"]) for step, found in logged if "step/loss" in found] == [
        (1, 2.5),
        (2, 1.5),
        (3, 0.5),
    ]
    assert [found["evaluation/average/accuracy"] for _, found in logged[-1:]] == [0.75]
