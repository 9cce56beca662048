"""Real processes are killed or interrupted at any moment, and their runs resume bit for bit."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitreous.model.weights import load_model
from vitreous.training.fit.checkpoint import list_checkpoints
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.wording import show

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL"),
]

PATIENCE_S = 120.0


@contextmanager
def process(*words: str) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, "-m", "vitreous", "train", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()


def as_words(request: TrainRequest) -> list[str]:
    options = [word for key, value in request.values.items() for word in (f"--{key}", show(value))]
    return [str(request.data), "--out", str(request.out), *options]


def last_step(folder: RunFolder) -> int:
    return max((int(path.stem[-9:]) for path in list_checkpoints(folder.checkpoints)), default=-1)


def wait_for_step(folder: RunFolder, step: int, running: "subprocess.Popen[str]") -> None:
    began_s = time.monotonic()
    while last_step(folder) < step:
        if running.poll() is not None or time.monotonic() - began_s > PATIENCE_S:
            running.kill()
            pytest.fail(f"the run ended or hung before step {step}: {running.communicate()}")
        time.sleep(0.002)


def stop(request: TrainRequest, number: signal.Signals, *, after_step: int) -> tuple[RunFolder, int, str]:
    """Start a run and signal it once this step is saved; return its folder, exit code and stderr."""
    assert request.out is not None
    folder = RunFolder(request.out)
    with process(*as_words(request)) as running:
        wait_for_step(folder, after_step, running)
        running.send_signal(number)
        _, errors = running.communicate(timeout=PATIENCE_S)
    assert not folder.model.exists(), "the run ended before the signal arrived"
    return folder, running.returncode, errors


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def request_of(images_folder: Path, tiny_keys: dict[str, Any], place: Path) -> Callable[[str], TrainRequest]:
    """Make a run of 84 steps that saves a checkpoint after each step."""
    values = tiny_keys | {"train.epochs": 14.0, "train.checkpoint_every_s": 0}
    return lambda name: TrainRequest(data=str(images_folder), values=values, out=place / name)


@pytest.fixture(scope="module")
def whole(request_of: Callable[[str], TrainRequest]) -> dict[str, Tensor]:
    """The weights of the run without interruption."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    weights = load_model(run_training(request_of("whole")).model).state_dict()
    torch.set_num_threads(before)
    return weights


@pytest.fixture(scope="module")
def killed(request_of: Callable[[str], TrainRequest]) -> RunFolder:
    """The folder of a run that was killed at some moment after step 9."""
    folder, code, _ = stop(request_of("killed"), signal.SIGKILL, after_step=9)
    assert code == -signal.SIGKILL
    return folder


def kinds(folder: RunFolder, wanted: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder.records) if record["kind"] == wanted]


def test_killed_run_resumes_bit_for_bit(killed: RunFolder, whole: dict[str, Tensor], tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(killed.path, tmp_path / "run")))
    with process("--resume", str(folder.path)) as running:
        _, errors = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, errors) == (0, "")
    torch.testing.assert_close(load_model(folder.model).state_dict(), whole, rtol=0, atol=0)
    assert [record["step"] for record in kinds(folder, "resume")] == [last_step(killed)]


def test_killed_run_with_a_truncated_checkpoint_resumes_bit_for_bit(
    killed: RunFolder, whole: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = RunFolder(Path(shutil.copytree(killed.path, tmp_path / "run")))
    newest = list_checkpoints(folder.checkpoints)[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 3])
    run_training(TrainRequest(resume=folder.path))
    torch.testing.assert_close(load_model(folder.model).state_dict(), whole, rtol=0, atol=0)
    assert kinds(folder, "damaged_checkpoint")[0]["reason"].startswith(f"{newest}: cannot be read as .safetensors")
    assert [record["step"] for record in kinds(folder, "resume")] == [last_step(killed) - 1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_that_is_stopped_by_a_signal_saves_and_says_how_to_resume(
    request_of: Callable[[str], TrainRequest], number: signal.Signals, code: int
) -> None:
    folder, returncode, errors = stop(request_of(f"stopped-{code}"), number, after_step=3)
    step, run = last_step(folder), folder.path
    assert returncode == code
    match = re.fullmatch(
        f"{run}: stopped at step {step} and saved; (.+); continue with `vitreous train --resume {run}`\n", errors
    )
    assert match is not None
    assert (
        match[1].startswith("the best model so far")
        if folder.find_preliminary()
        else match[1] == "there is no model yet"
    )
    assert [record["step"] for record in kinds(folder, "interrupted")] == [step]
