"""Data that is unusually large, slow or shared by several runs: it is trained on, or refused, and nothing hangs."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tests.pictures import write_pictures

from vitreous.data.sources import open_object
from vitreous.data.sources.table import open_table
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.use.run import Run

TINY = {
    "data.img_size": 8, "model.patch_size": 4, "model.embed_dim": 8, "model.depth": 1, "model.num_heads": 2,
    "train.epochs": 1.0, "train.device": "cpu", "train.precision": "fp32",
}  # fmt: skip
OPTIONS = [word for key, value in TINY.items() for word in (f"--{key}", str(value))]
CLASSES = {"red": ((200, 60, 50), 29), "green": ((70, 180, 60), 23)}


def start(data: Path, out: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vitreous", "train", str(data), "--out", str(out), *OPTIONS]
    return subprocess.Popen(
        [*command, "--data.cache", str(cache)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_runs_that_share_a_cache_give_the_same_weights_although_one_is_killed(tmp_path: Path) -> None:
    photos, cache = write_pictures(tmp_path / "photos", CLASSES, seed=3, name="{}.png", noise=20), tmp_path / "cache"
    runs = [start(photos, tmp_path / f"run-{number}", cache) for number in range(3)]
    try:
        while not any(cache.glob(".*.lock")) and runs[0].poll() is None:
            time.sleep(0.02)
        runs[0].send_signal(signal.SIGKILL)
        errors = [run.communicate(timeout=240)[1] for run in runs[1:]]
    finally:
        for run in runs:
            run.kill()
            run.communicate()
    assert [run.returncode for run in runs[1:]] == [0, 0], errors
    first, second = ((tmp_path / f"run-{number}" / "model.safetensors") for number in (1, 2))
    first_state, second_state = (Run(path.parent).predictor.model.state_dict() for path in (first, second))
    assert all(bool((first_state[name] == second_state[name]).all()) for name in first_state)
    assert not list(cache.glob("*.tmp"))


@pytest.mark.slow
def test_more_than_20000_classes_of_one_image_are_trained_and_counted(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20_500, 8, 8, 3), dtype=np.uint8)
    source = open_object([(image, number) for number, image in enumerate(pixels)])
    values = {**TINY, "data.cache": "none", "data.batch_size": 2048}
    folder = run_training(TrainRequest(source=source, values=values, out=tmp_path / "run"))
    assert len(Run(folder.path).classes) == 20_500
    assert any(record["kind"] == "step" for record in read_records(RunFolder(folder.path).records))


@pytest.mark.timeout(60)
def test_named_pipes_are_never_waited_for(tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", CLASSES, seed=3, name="{}.png", noise=20)
    os.mkfifo(photos / "red" / "pipe.png")
    folder = run_training(TrainRequest(data=str(photos), values={**TINY, "data.cache": "none"}, out=tmp_path / "run"))
    assert Run(folder.path).metadata["classes"] == ["green", "red"]


@pytest.mark.slow
def test_memory_for_a_large_table_is_that_of_its_paths(tmp_path: Path) -> None:
    """A list of the cells of each row would take over 400 bytes per row."""
    num_rows, path = 150_000, tmp_path / "table.csv"
    (tmp_path / "0").mkdir()
    (tmp_path / "0/000000.png").write_bytes(b"")
    with path.open("w") as file:
        file.write("path,label,note\n")
        file.writelines(f"{i // 50_000}/{i:06}.png,label {i % 7} {'x' * 30},{i:012}\n" for i in range(num_rows))
    tracemalloc.start()
    try:
        source = open_table(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(source) == num_rows
    assert peak < 200 * num_rows
