"""Two real processes train one model, and a run of a single process is the reference.

Sums over a batch are taken in another order, so losses agree within 1e-5 and not bit for bit. There is no dropout,
because each process draws its own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.runs_of_a_group import train

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights import load_model, save_model
from vitreous.training.fit.checkpoint import list_checkpoints
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.wording import show

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]

PATIENCE_S = 250.0
RUNS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"train.parallel": "fsdp"},
    "micro-batches": {"train.micro_batches": 2, "objective.class_weights": "balanced"},
    "micro-batches-fsdp": {"train.micro_batches": 2, "objective.class_weights": "balanced", "train.parallel": "fsdp"},
    "unfrozen": {"train.freeze_blocks": 1, "train.freeze_until": 0.5},
    "unfrozen-fsdp": {"train.freeze_blocks": 1, "train.freeze_until": 0.5, "train.parallel": "fsdp"},
    "lora": {"train.lora_rank": 2},
    "lora-fsdp": {"train.lora_rank": 2, "train.parallel": "fsdp"},
    "taught": {"objective.teacher_views": "fixed"},
    "taught-fsdp": {"objective.teacher_views": "fixed", "train.parallel": "fsdp"},
    "ddp-ahead": {},
    "micro-batches-ahead": {"train.micro_batches": 2, "objective.class_weights": "balanced"},
    "unfrozen-ahead": {"train.freeze_blocks": 1, "train.freeze_until": 0.5},
    "budget-ahead": {"train.epochs": 500.0, "train.budget_s": 16.0},
    "stopped": {"train.parallel": "fsdp"},
}


@contextmanager
def process(*words: str) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    with subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.terminate()


def finished(*words: str) -> str:
    with process(*words) as running:
        out, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, out + errors
    return errors


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_records(RunFolder(folder).records) if record["kind"] == kind]


def last_step(folder: Path) -> int:
    return max((int(path.stem[-9:]) for path in list_checkpoints(RunFolder(folder).checkpoints)), default=-1)


@pytest.fixture(scope="module")
def values(tiny_keys: dict[str, Any]) -> dict[str, Any]:
    """Keys of a run with batches of 6 or 7 images, so that some have two micro-batches of different sizes."""
    without_draws = {"model.drop_path_rate": 0.0, "model.proj_drop_rate": 0.0, "train.epochs": 4.0}
    return {**tiny_keys, **without_draws, "data.batch_size": 7, "train.checkpoint_every_s": 0.0}


def values_of(name: str, values: dict[str, Any], place: Path) -> dict[str, Any]:
    """Return the keys of a run; a teacher without a head is saved for those that have one."""
    teacher = place.parent / "teacher.safetensors"
    if not teacher.is_file():
        config = ModelConfig(
            img_size=(16, 24), patch_size=4, in_chans=3, num_classes=0, embed_dim=24, depth=1, num_heads=2
        )
        save_model(teacher, build_model(config, generator=torch.Generator().manual_seed(4)), {})
    return values | RUNS[name] | ({"objective.teacher": str(teacher)} if name.startswith("taught") else {})


@pytest.fixture(scope="module")
def single(images_folder: Path, values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with each run, trained by one process."""
    place = tmp_path_factory.mktemp("single")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in ("ddp", "micro-batches", "unfrozen", "lora", "taught"):
        train({"data": str(images_folder), "values": values_of(name, values, place), "out": str(place / name)})
    torch.set_num_threads(before)
    return place


@pytest.fixture(scope="module")
def together(images_folder: Path, values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with each run, trained by two processes of torchrun; the last run is stopped at step 5."""
    place = tmp_path_factory.mktemp("together")
    runs = [
        {"data": str(images_folder), "values": values_of(name, values, place), "out": str(place / name)}
        for name in RUNS
    ]
    for name, run in zip(RUNS, runs, strict=True):
        run["runs_ahead"] = name.endswith("-ahead")
    runs[-1]["stop_at"] = 5
    finished(*torchrun(), "tests.unit.training.runs_of_a_group", json.dumps(runs))
    return place


def torchrun() -> tuple[str, ...]:
    return ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


@pytest.mark.parametrize("name", [name for name in RUNS if name not in ("stopped", "budget-ahead")])
def test_two_processes_train_like_one(name: str, single: Path, together: Path) -> None:
    reference = single / name.removesuffix("-fsdp").removesuffix("-ahead").replace("fsdp", "ddp")
    for key in ("loss", "grad_norm", "accuracy"):
        of_two, of_one = ([record[key] for record in records(place, "step")] for place in (together / name, reference))
        assert len(of_two) > 20
        torch.testing.assert_close(of_two, of_one, rtol=0, atol=1e-5)
    (of_two,), (of_one,) = records(together / name, "end"), records(reference, "end")
    for split in ("val", "test"):
        assert of_two["metrics"][split]["num_images"] == of_one["metrics"][split]["num_images"]
        assert of_two["metrics"][split]["num_correct"] == of_one["metrics"][split]["num_correct"]
        assert of_two["metrics"][split]["loss"] == pytest.approx(of_one["metrics"][split]["loss"], abs=1e-5)


def test_processes_that_run_ahead_follow_a_budget_that_moves_the_end(together: Path) -> None:
    (end,) = records(together / "budget-ahead", "end")
    horizons = records(together / "budget-ahead", "horizon")
    assert horizons
    assert end["step"] == horizons[-1]["end_step"]


def test_every_held_out_image_is_predicted_once(single: Path, together: Path) -> None:
    of_two, of_one = (
        [line.split(",")[:2] for line in RunFolder(place / "ddp").predictions.read_text().splitlines()]
        for place in (together, single)
    )
    assert of_two == of_one


def test_run_can_be_resumed_with_another_number_of_processes(together: Path, single: Path) -> None:
    """Two processes with FSDP, then one, then two again, give the losses of a run that never stopped."""
    folder = together / "stopped"
    assert last_step(folder) == 5
    train({"out": str(folder), "resume": True, "stop_at": 11})
    assert last_step(folder) == 11
    finished(*torchrun(), "vitreous", "train", "--resume", str(folder))
    by_step = {record["step"]: record["loss"] for record in records(folder, "step")}
    reference = {record["step"]: record["loss"] for record in records(single / "ddp", "step")}
    assert list(by_step) == list(reference)
    torch.testing.assert_close(list(by_step.values()), list(reference.values()), rtol=0, atol=1e-5)
    assert [record["step"] for record in records(folder, "resume")] == [5, 11]
    assert RunFolder(folder).report.is_file()


def workers_of(launched: "subprocess.Popen[str]") -> list[int]:
    """Return the training processes of a launcher, without the process that tracks their resources."""
    children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_for_step(folder: Path, step: int, running: "subprocess.Popen[str]") -> None:
    began_s = time.monotonic()
    while last_step(folder) < step:
        if running.poll() is not None or time.monotonic() - began_s > PATIENCE_S:
            running.kill()
            pytest.fail(f"the run ended or hung before step {step}: {running.communicate()}")
        time.sleep(0.005)


def launch_words(images_folder: Path, values: dict[str, Any], out: Path) -> list[str]:
    options = [word for key, value in values.items() for word in (f"--{key}", show(value))]
    return ["vitreous", "train", str(images_folder), "--out", str(out), "--nproc", "2", *options]


def test_group_resumes_from_the_last_checkpoint_after_a_process_is_killed(
    images_folder: Path, values: dict[str, Any], together: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with process(*launch_words(images_folder, values, folder)) as running:
        wait_for_step(folder, 4, running)
        os.kill(workers_of(running)[-1], signal.SIGKILL)
        out, errors = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, errors) == (0, "")
    assert "one of 2 processes failed; all were restarted" in out
    (restart,), (resume,) = records(folder, "restart"), records(folder, "resume")
    assert (restart["number"], restart["num_processes"]) == (1, 2)
    assert resume["step"] >= 4
    torch.testing.assert_close(
        load_model(RunFolder(folder).model).state_dict(),
        load_model(RunFolder(together / "ddp").model).state_dict(),
        rtol=0,
        atol=0,
    )


def test_signal_to_the_launcher_saves_once_and_says_how_to_resume(
    images_folder: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with process(*launch_words(images_folder, values | {"train.epochs": 40.0}, folder)) as running:
        wait_for_step(folder, 2, running)
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 128 + signal.SIGTERM, errors
    assert errors.startswith(f"{folder}: stopped at step {last_step(folder)} and saved; ")
    assert errors.strip().endswith(f"; continue with `vitreous train --resume {folder}`")
    assert [record["step"] for record in records(folder, "interrupted")] == [last_step(folder)]


def test_user_error_is_printed_once_and_nothing_is_restarted(images_folder: Path, tmp_path: Path) -> None:
    words = ["vitreous", "train", str(images_folder), "--nproc", "2", "--out", str(tmp_path / "run")]
    with process(*words, "--model.patch_size", "7", "--data.img_size", "8") as running:
        out, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 2
    assert errors.startswith("model.patch_size=7: ")
    assert len(errors.splitlines()) == 1
    assert "restarted" not in out


def test_all_processes_train_each_run_of_a_series(images_folder: Path, values: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "series"
    words = launch_words(images_folder, values | {"train.epochs": 1.0}, folder)
    finished(*words, "--seeds", "2")
    summary = json.loads((folder / "summary.json").read_text())
    assert [run["run"] for run in summary["runs"]] == ["seed-0", "seed-1"]
    for name in ("seed-0", "seed-1"):
        (start,) = records(folder / name, "start")
        assert start["num_processes"] == 2
