"""Command lines with any value for any option -> exit code 0, or one line that says what is wrong and what to do.

Words are drawn for every argument and option that the parser knows, so that a new option needs no change here.
"""

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from tests.fuzz.campaign import Campaign
from tests.fuzz.mutation import mutated
from tests.unit.use.conftest import photos, run, run_on  # noqa: F401

from vitreous.cli.main import app, main
from vitreous.errors import VitreousError
from vitreous.recipe import keys
from vitreous.use.run import Run

RUNS = ("run", "other", "run/model.safetensors", "model.safetensors", "seed-runs", "half")
DATA = ("photos", "table.csv", "digits", "photos/two words", "shards", "empty")
ARGUMENTS = {
    "train": (DATA,),
    "evaluate": (RUNS, DATA),
    "compare": (RUNS, RUNS),
    "predict": (RUNS, ("photos", "photos/two words/bild 1 ü.png", "empty", "table.csv")),
    "inspect": ((*RUNS, *DATA, "weights.pt", "vit_tiny_patch16_224"),),
    "convert": (("run/model.safetensors", "weights.pt", "run", "model.safetensors"),),
    "shard": (DATA, ("new", "empty", "a/b/new")),
    "explain": (
        ("run", "run/model.safetensors", "weights.pt"),
        ("photos/two words/bild 1 ü.png", "empty", "damaged.png"),
    ),
    "embed": (("run", "run/model.safetensors", "weights.pt"), ("photos", "empty", "damaged.png")),
    "models": (("get",), ("dinov2-small", "timm/nothing", "nothing")),
}
"""Suitable words for the arguments of each command; those of train never start a training."""
FORMATS = ("hf", "timm", "torchvision", "npz", "open-clip", "vit-pytorch", "vitreous")
SUITABLE = {
    "--device": ("cpu", "auto"),
    "--to": FORMATS,
    "--out": ("new", "new.csv", "new.jsonl", "new.parquet", "new.safetensors", "new.pt", "new.npz", "a/b/new.csv"),
    "--html": ("new.html", "a/b.html"),
    "--root": (".", "photos", ".."),
    "--pretrained": ("run", "other", "model.safetensors", "weights.pt"),
    "--method": ("gradient-attention", "all"),
    "--target": ("two words", "Äpfel", "0"),
    "--versus": ("two words", "Äpfel", "0"),
    "--nearest": ("photos", "damaged.png", "empty"),
    "--clusters": ("2", "5"),
    "--img-size": ("8", "12x8"),
    "--top": ("1", "3"),
    "--weights": ("raw", "ema", "auto", "encoder"),
    "--name": ("vit_tiny_patch16_224", "vit_pico"),
    "--max-samples": ("1", "7", "1000"),
    "--max-bytes": ("1", "10000", "1000000000"),
}
HOSTILE = (
    "", " ", ".", "..", "/", "-", "--", "-1", "0", "1.5", "1e999", "nan", "inf", "1_000", "٣", "9" * 400, "9" * 5000,
    "true", "None", "null", "[]", "{}", "a=b", "=", "a\nb", "\x1b[31mred", "a\udcffb", "\u202egnp", "[bold]x[/bold]",
    "[/red]", "%s%n", "x" * 300, "x/" * 3000, "/dev/null", "/dev/full", "/dev/zero", "/proc/self/mem", "~",
    "~ghost/x", "*", "missing", "missing/new.csv", "text.txt", "text.txt/x.csv", "empty", "loop", "pipe", "pipe.png",
    "loop/x.csv", "damaged.safetensors", "damaged.csv", "damaged.tar", "damaged.png", "many\nlines.png", "cuda",
    "cuda:-1", "cuda:99", "meta", "cpu:3", "mps", "https://127.0.0.1:9/x.tar", "s3://", "hf://", "hf://a",
    "file:///etc/passwd", "digits", "vit_nothing", "photos.csv::photos", "http://", "table.csv", "model.safetensors",
    "run", "run/plan.md", "run/config.yaml",
)  # fmt: skip
"""Words that fit nowhere, or only in some other place."""


def options_of(command: str) -> dict[str, bool]:
    """Return the options of a command, each with True if it takes a value."""
    found = app[command].assemble_argument_collection()
    return {argument.name: argument.hint is not bool for argument in found if argument.name.startswith("--")}


REWRITING = ("--robustness", "--slices")
"""Options that add to a run folder or renew its report, as `vitreous report` does; no other command changes a file."""
OPTIONS = {
    command: {name: takes for name, takes in options_of(command).items() if name not in REWRITING}
    for command in ARGUMENTS
}
ASSIGNMENTS = tuple(f"--{key}" for key in keys.rules())
ARCHITECTURE = tuple(f"--architecture.{key.removeprefix('model.')}" for key in keys.rules() if key.startswith("model."))


def word(draw: np.random.Generator, suitable: tuple[str, ...]) -> str:
    """Draw a word that is suitable, hostile, a number, or of random characters."""
    kind = draw.random()
    if kind < 0.8 and suitable:
        return str(draw.choice(suitable))
    if kind < 0.93:
        return HOSTILE[draw.integers(len(HOSTILE))]
    if kind < 0.97:
        size = 10.0 ** int(draw.integers(-9, 300))
        return str([draw.integers(-3, 20), draw.integers(-(2**62), 2**62), draw.normal() * size][draw.integers(3)])
    return "".join(map(chr, draw.integers(1, 0x2000, draw.integers(1, 9))))


def command_line(draw: np.random.Generator) -> bytes:
    """Draw a command with its arguments and up to three options."""
    command = list(ARGUMENTS)[draw.integers(len(ARGUMENTS))]
    words = [word(draw, suitable) for suitable in ARGUMENTS[command]]
    words = words[: len(words) - int(draw.random() < 0.1)] + [word(draw, ())] * int(draw.random() < 0.1)
    chosen = [(name, has_value) for name, has_value in OPTIONS[command].items() if draw.random() < 0.15]
    if command == "convert" and draw.random() < 0.9:
        chosen.append(("--to", True))
    if "--set" in OPTIONS[command] and draw.random() < 0.4:
        names = ASSIGNMENTS if command == "train" else ARCHITECTURE
        chosen.append((str(draw.choice(names)), True))
    for name, has_value in chosen:
        value = [word(draw, SUITABLE.get(name, ()))] if has_value or draw.random() < 0.05 else []
        words += [f"{name}={value[0]}"] if value and draw.random() < 0.3 else [name, *value]
    return json.dumps([command, *words]).encode()


class Started(BaseException):
    """The command has checked its options and would train now."""


@pytest.fixture(scope="module")
def place(run: Run, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder with everything that the words name."""
    root = tmp_path_factory.mktemp("place")
    for name in ("run", "other", "half", "seed-runs/seed-0"):
        shutil.copytree(run.path, root / name)
    (root / "half/model.safetensors").unlink()
    shutil.copytree(photos, root / "photos")
    shutil.copy(run.path / "model.safetensors", root)
    rows = [f'"{path.relative_to(root)}",{path.parent.name[0]}' for path in sorted((root / "photos").rglob("*.png"))]
    (root / "table.csv").write_text("\n".join(["path,label", *rows]))
    torch.save(Run(root / "run").predictor.model.state_dict(), root / "weights.pt")
    (root / "text.txt").write_text("text")
    (root / "empty").mkdir()
    (root / "loop").symlink_to("loop")
    for name in ("pipe", "pipe.png"):
        os.mkfifo(root / name)
    (root / "many\nlines.png").write_bytes(b"")
    draw = np.random.default_rng(0)
    for name in ("model.safetensors", "table.csv"):
        content = (root / name).read_bytes()
        (root / f"damaged{Path(name).suffix}").write_bytes(mutated(draw, [content])[:-1])
    image = next(path for path in (root / "photos").rglob("*.png")).read_bytes()
    (root / "damaged.png").write_bytes(image[:-30])
    (root / "damaged.tar").write_bytes(b"x" * 1000)
    return root


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of each file."""
    found = {str(path): path.lstat() for path in folder.rglob("*") if not path.is_dir()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.fixture
def trainless() -> Iterator[None]:
    """Replace what trains, in this process or in others."""
    names = ("run_training", "run_series", "launch", "plan_only")
    patches = [mock.patch(f"vitreous.cli.train.train.{name}", side_effect=Started) for name in names]
    for patch in patches:
        patch.start()
    yield
    for patch in patches:
        patch.stop()


@pytest.mark.usefixtures("trainless")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_command_lines(campaign: Campaign, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = campaign.folder / "here"

    def check(path: Path) -> None:
        if not here.exists() or contents(here) != before:
            shutil.rmtree(here, ignore_errors=True)
            copy_to(here)
        monkeypatch.chdir(here)
        started = contents(here)
        output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        words = json.loads(path.read_bytes())
        try:
            with redirect_stdout(output), redirect_stderr(errors):
                code = main(words)
        except (Started, SystemExit):
            return
        for stream in (output, errors):
            stream.flush()
        text = errors.buffer.getvalue().decode()
        assert "Traceback" not in text
        assert "bug in vitreous" not in text, text
        ended = contents(here)
        changed = [name for name, fact in started.items() if ended.get(name) != fact]
        assert not changed, changed
        if code:
            assert code == 2, text
            if words[0] not in ("predict", "explain"):  # they write the images that could be read
                assert ended.keys() == started.keys(), ended.keys() - started.keys()
            line = text.splitlines()[-1]
            assert ": " in line, text
            raise VitreousError(line)

    def copy_to(folder: Path) -> None:
        shutil.copytree(
            place, folder, symlinks=True, ignore=lambda _, names: [n for n in names if n.startswith("pipe")]
        )
        for name in ("pipe", "pipe.png"):
            os.mkfifo(folder / name)
        before.clear()
        before.update(contents(folder))

    before: dict[str, tuple[int, int]] = {}
    campaign.run(command_line, check, suffix=".json", share=0.25)
    assert campaign.accepted > 0.05 * campaign.rejected
