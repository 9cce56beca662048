"""`vitreous train --folds --seeds` and `vitreous compare`: their output and their errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import TINY

Cli = Callable[..., Any]


@pytest.fixture
def small() -> list[str]:
    return [*TINY, "--epochs", "0.3"]


def test_series_ends_with_a_table_and_a_pooled_accuracy(
    photos: Path, cli: Cli, small: list[str], tmp_path: Path
) -> None:
    said = cli("train", photos, "--folds", "3", *small, "--out", tmp_path / "my series")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line for line in lines if line.endswith(" of 3)")] == [
        "fold-0 (1 of 3)",
        "fold-1 (2 of 3)",
        "fold-2 (3 of 3)",
    ]
    assert sum(line.startswith("  data.img_size = 8x12") for line in lines) == 1  # the plan is shown once
    assert sum("100%  epoch" in line for line in lines) == 3
    names = [
        line.split()[0] for line in lines[lines.index(next(line for line in lines if line.startswith("run "))) :][:4]
    ]
    assert names == ["run", "fold-0", "fold-1", "fold-2"]
    assert any(line.startswith("accuracy over all 3 folds: ") and " of 61 images correct, " in line for line in lines)
    assert not any("--folds 5" in line for line in lines)
    assert f"series folder: {tmp_path / 'my series'} (summary.md, summary.json, one folder per run)" in lines
    again = cli("train", "--resume", tmp_path / "my series")
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("fold-0 (1 of 3): already complete\nfold-1 (2 of 3): already complete\n")
    compared = cli("compare", tmp_path / "my series", tmp_path / "my series")
    assert compared.out.startswith("on the 61 images that both were tested on:\n")
    assert compared.out.endswith("neither is significantly better: a 95% interval contains 0\n")


def test_runs_are_compared_as_text_and_as_json(run: Path, cli: Cli) -> None:
    said = cli("compare", run, run)
    assert (said.code, said.err) == (0, "")
    assert "\naccuracy of B minus A: +0.0 points; 95% interval -" in said.out
    assert "\nimages that only A classifies correctly: 0, only B: 0 (exact McNemar test, p = 1)\n" in said.out
    found = json.loads(cli("compare", run, run, "--json").out)
    assert (found["difference"], found["better"], found["a"]) == (0, None, str(run))


def test_dry_run_lists_the_runs_and_writes_nothing(photos: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("train", photos, *TINY, "--folds=2", "--seeds=2", "--seed=7", "--dry-run")
    first = "4 runs: fold-0-seed-7, fold-1-seed-7, fold-0-seed-8, fold-1-seed-8; the first one:\n"
    assert said.code == 0
    assert first in said.out
    assert "\n  num_folds: 2\n  fold: 0\n" in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--folds", "1"), "folds=1: must be from 2 to 1,000; use 5, or leave it out for a single run\n"),
        (("--seeds", "-2"), "seeds=-2: must be in [0, 1000]; 3 to 5 is usual\n"),
        (("--folds", "1000"), "data.num_folds=1000: no class has that many distinct images; use at most 25 folds\n"),
        (("--folds", "4", "--data.fold", "2"), "data.fold=2: is decided by folds=4; leave it out\n"),
        (("--data.num_folds", "4", "--data.fold", "4"), "data.fold=4: is none of data.num_folds=4 folds; use 0 to 3\n"),
    ],
)
def test_invalid_series_is_reported_in_one_line(
    words: tuple[str, ...], line: str, photos: Path, cli: Cli, tmp_path: Path
) -> None:
    said = cli("train", photos, *TINY, *words, "--out", tmp_path / "series")
    assert (said.code, said.err) == (2, line)
    assert not (tmp_path / "series").exists()
