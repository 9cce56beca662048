"""`vitreous pretrain`: its output, the run that `vitreous train` continues from, and its errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.pictures import write_pictures
from tests.unit.cli.conftest import TINY

from vitreous.training.folder.run_folder import RunFolder

Cli = Callable[..., Any]
Trained = tuple[Path, Any]


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder of images without class folders."""
    return write_pictures(tmp_path / "all", {"": ((90, 160, 30), 24)}, seed=3, name="{:02d}.png", noise=50)


def test_pretraining_ends_with_what_was_learned_and_training_starts_from_its_folder(
    cli: Cli, flat: Path, tmp_path: Path
) -> None:
    out = tmp_path / "first"
    said = cli("pretrain", flat, "--epochs", 1, "--out", out, *TINY)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("all: ")
    assert lines[0].endswith(" held out; there are no labels")
    progress = [line for line in lines if "%  epoch " in line]
    assert progress
    assert not any("accuracy" in line for line in progress)
    assert any(line.startswith("reconstruction loss of ") for line in lines)
    assert any(line.startswith("features: effective rank ") and " of 16, spread " in line for line in lines)
    assert f"run folder: {out} (model.safetensors, reconstructions.jpg, plan.md, records.jsonl, config.yaml)" in lines
    assert f"  vitreous train DATA --pretrained {out}  learn classes from labeled images" in lines

    for words in (("predict", out, flat / "00.png"), ("report", out), ("evaluate", out)):
        refused = cli(*words)
        assert refused.code == 2
        assert refused.err.startswith(f"run={out}: was pretrained without labels and knows no classes; ")
    assert "classes" in cli("inspect", out).out
    assert not RunFolder(out).report.exists()


def test_plan_of_pretraining_is_shown_without_training(cli: Cli, flat: Path, tmp_path: Path) -> None:
    said = cli("pretrain", flat, "--dry-run", "--method", "lejepa", "--out", tmp_path / "none", *TINY)
    assert said.code == 0
    assert "objective.loss = lejepa: you asked for it" in said.out
    assert "data.task = unlabeled: " in said.out
    assert not (tmp_path / "none").exists()


def test_method_is_one_of_those_without_labels(cli: Cli, flat: Path) -> None:
    said = cli("pretrain", flat, "--method", "simim")
    assert (said.code, said.err) == (2, "method=simim: no such method; did you mean simmim?\n")
    assert cli("pretrain", flat, "--method", "bce").err.startswith("method=bce: no such method; ")


def test_run_with_labels_is_continued_by_train(cli: Cli, trained: Trained) -> None:
    said = cli("pretrain", "--resume", trained[0])
    assert said.code == 2
    assert said.err.startswith(f"resume={trained[0]}: learns from labels; continue it with `vitreous train --resume ")
