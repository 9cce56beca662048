"""Photos with awkward names, a run that the command line trained on them, and `cli` to call commands."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.pictures import write_pictures

from vitreous.cli.main import main
from vitreous.training.folder.outputs import SplitOutputs, write_outputs
from vitreous.training.folder.run_folder import RunFolder

TINY = [
    *("--img-size", "8x12", "--device", "cpu", "--precision", "fp32", "--data.batch-size", "16"),
    *("--model.patch_size=4", "--model.embed_dim=16", "--model.depth=1", "--model.num_heads", "2", "--optim.lr=0.01"),
]
"""Options of a training that takes a second per epoch."""


@dataclass(frozen=True)
class Said:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call `vitreous` with these words, in this process."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def process() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Call `python -m vitreous` with these words, in a process of its own."""

    def call(*words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "vitreous", *map(str, words)]
        env = os.environ | {"PYTHONWARNINGS": "error"} | environment
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, env=env, check=False)

    return call


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """61 images, 9 px high and 14 wide, of three classes; not to be changed."""
    classes = {"Äpfel": ((200, 60, 50), 25), "[red]:cat:": ((70, 180, 60), 20), "two words": ((90, 70, 190), 16)}
    root = tmp_path_factory.mktemp("cli") / "my photos"
    return write_pictures(root, classes, seed=3, name="bild {} ü.png", noise=20, tint=60)


@pytest.fixture(scope="session")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A run folder with a space in its name, and the output of the command that made it; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "tiny run"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["train", str(photos), "--out", str(folder), "--epochs", "1", *TINY])
    return folder, Said(code, out.getvalue(), err.getvalue())


@pytest.fixture
def run(trained: tuple[Path, Said]) -> Path:
    """The run folder; not to be changed."""
    return trained[0]


@pytest.fixture
def unfinished(run: Path, tmp_path: Path) -> Path:
    """A run folder without its model."""
    folder = Path(shutil.copytree(run, tmp_path / "half done"))
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def well_measured(run: Path, tmp_path: Path) -> Path:
    """The run with made outputs of 200 validation images, of which 85% are correct."""
    folder = Path(shutil.copytree(run, tmp_path / "measured"))
    labels = torch.arange(200) % 3
    logits = 4 * torch.eye(3)[(labels + (torch.arange(200) % 20 < 3)) % 3] * torch.linspace(0.05, 1, 200)[:, None]
    write_outputs(RunFolder(folder).outputs, {"val": SplitOutputs(logits, labels, np.arange(200))})
    return folder


@pytest.fixture
def image(photos: Path) -> Path:
    return photos / "Äpfel" / "bild 3 ü.png"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file with the name but not the content of an image."""
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    return path


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs without `--out` land in the folder of the test."""
    monkeypatch.chdir(tmp_path)
