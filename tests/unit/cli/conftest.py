"""Made photos with awkward names, a run that the command line itself trained on them, and `cli` to call it."""

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
from PIL import Image

from vitreous.cli.main import main

TINY = [
    *("--img-size", "8x12", "--device", "cpu", "--precision", "fp32", "--data.batch-size", "16"),
    *("--model.patch_size=4", "--model.embed_dim=16", "--model.depth=1", "--model.num_heads", "2", "--optim.lr=0.01"),
]
"""Options of a training that takes a second for an epoch."""


@dataclass(frozen=True)
class Said:
    """What a command gave back."""

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
    root = tmp_path_factory.mktemp("cli") / "my photos"
    draw = np.random.default_rng(3)
    colours = {"Äpfel": (200, 60, 50), "[red]:cat:": (70, 180, 60), "two words": (90, 70, 190)}
    for (name, colour), count in zip(colours.items(), (25, 20, 16), strict=True):
        (root / name).mkdir(parents=True)
        for number in range(count):
            tint = np.array(colour) + draw.normal(0, 60, 3)
            pixels = np.clip(tint + draw.normal(0, 20, (9, 14, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"bild {number} ü.png")
    return root


@pytest.fixture(scope="session")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A run folder with a space in its name, and what the command said while it made it; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "tiny run"
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        code = main(["train", str(photos), "--out", str(out), "--epochs", "1", *TINY])
    return out, Said(code, said.getvalue(), complained.getvalue())


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
def image(photos: Path) -> Path:
    return photos / "Äpfel" / "bild 3 ü.png"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file that is an image by name alone."""
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without --out land in the test's own folder."""
    monkeypatch.chdir(tmp_path)
