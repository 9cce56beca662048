"""From proposals to a corrected run on the command line, and groups of images that are classified worse."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import TINY

Cli = Callable[..., Any]


def test_proposals_are_written_edited_and_applied(cli: Cli, photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    shutil.copy(data / "two words" / "bild 3 ü.png", data / "two words" / "again.png")
    file = tmp_path / "my fix.csv"
    said = cli("inspect", data, "--fix", file)
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith(f"proposed corrections: {file}; edit it, then train with --data.corrections '{file}'\n")
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["path"], row["action"]) for row in rows if row["action"] == "drop"] == [
        ("two words/bild 3 ü.png", "drop")
    ]
    said = cli("train", data, "--data.corrections", file, "--out", tmp_path / "run", "--epochs", "0.3", *TINY)
    assert (said.code, said.err) == (0, "")
    assert f"note: {file} is applied: {len(rows)} row" in said.out
    assert (tmp_path / "run" / "corrections.csv").is_file()
    said = cli("inspect", data, "--fix", file)
    assert (said.code, said.out) == (2, "")
    assert said.err == f"fix={file}: exists, and may have been edited; choose another name, or remove it\n"


def test_images_of_a_run_are_checked_if_asked_for(cli: Cli, run: Path, tmp_path: Path) -> None:
    said = cli("inspect", run, "--labels", "--html", tmp_path / "page.html", "--fix", tmp_path / "fix.csv")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("data my photos\n")
    assert (tmp_path / "page.html").is_file()
    found = json.loads(cli("inspect", run, "--labels", "--json").out)
    assert found["kind"] == "data"
    assert found["labels"]["basis"] == "a model that was not trained on the image"
    assert cli("inspect", run).out.startswith(f"run {run}\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("inspect", "vit_tiny_patch16_224", "--fix", "x.csv"),
         "fix=x.csv: applies only to data, and vit_tiny_patch16_224 is not a data set; leave it out"),
        (("inspect", "digits", "--fix", "x.txt"), "fix=x.txt: ends in .txt; use one of .csv"),
        (("train", "digits", "--data.corrections", "gone.csv"), "data.corrections=gone.csv: cannot be read ("),
        (("train", "digits", "--data.corrections", "gone.txt"), "data.corrections=gone.txt: is not a .csv file; "),
    ],
)  # fmt: skip
def test_impossible_request_is_one_line(cli: Cli, words: tuple[str, ...], line: str) -> None:
    said = cli(*words)
    assert (said.code, said.out) == (2, "")
    assert line.split("=", 1)[0] in said.err
    assert line.split("=", 1)[1].split(": ", 1)[1] in said.err
    assert said.err.count("\n") == 1


def test_groups_are_listed_after_the_scores(cli: Cli, run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run, tmp_path / "run")
    said = cli("evaluate", run, "--slices")
    assert (said.code, said.err) == (0, "")
    assert "accuracy" in said.out
    assert said.out.splitlines()[-1].startswith("no group of images is classified significantly worse")
    found = json.loads(cli("evaluate", run, "--slices", "--json").out)
    assert found["slices"] == json.loads((run / "slices.json").read_text())
    assert "slices" not in json.loads(cli("evaluate", run, "--json").out)


def test_groups_of_other_data_are_refused(cli: Cli, run: Path, photos: Path) -> None:
    said = cli("evaluate", run, photos, "--slices")
    assert (said.code, said.out) == (2, "")
    assert said.err == f"slices={photos}: are groups of the images that the run held out; leave the data out\n"
