"""`vitreous evaluate`: accuracy with its interval, each class, confusion."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.model.weights import read_metadata

Cli = Callable[..., Any]


def test_screen_shows_accuracy_classes_and_confusion(run: Path, cli: Cli) -> None:
    said = cli("evaluate", run)
    stored = read_metadata(run / "model.safetensors")["metrics"]["test"]
    low, high = stored["interval_95"]
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(
        f"my photos, test split: accuracy {100 * stored['accuracy']:.1f} % ({stored['num_correct']} of "
        f"{stored['num_images']} images right; 95 % interval {100 * low:.1f} to {100 * high:.1f} %)\nloss "
    )
    lines = said.out.splitlines()
    assert "class       precision  recall     F1  images" in lines
    assert any(line.startswith("[red]:cat:  ") for line in lines)  # neither markup nor a picture of a cat
    assert "confusion: rows are, columns were called" in lines


def test_document_is_json_alone_and_holds_all_of_it(run: Path, cli: Cli) -> None:
    said = cli("evaluate", run, "--json")
    found = json.loads(said.out)
    stored = read_metadata(run / "model.safetensors")["metrics"]["test"]
    assert (said.code, said.err) == (0, "")
    assert {key: found[key] for key in ("accuracy", "num_images", "num_correct")} == {
        key: stored[key] for key in ("accuracy", "num_images", "num_correct")
    }
    assert [row["name"] for row in found["classes"]] == ["[red]:cat:", "two words", "Äpfel"]
    assert sum(map(sum, found["confusion"])) == found["num_images"]


def test_document_stays_alone_where_files_are_left_out(run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    data = shutil.copytree(photos, tmp_path / "some")
    (data / "Äpfel" / "broken.png").write_bytes(b"no image")
    said = cli("evaluate", run, data, "--json")
    assert json.loads(said.out)["num_images"] == 61
    assert said.code == 0
    assert said.err.startswith("note: unreadable files that are left out: 1, e.g. ")


def test_model_file_alone_is_scored_on_a_folder(run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    model = shutil.copy(run / "model.safetensors", tmp_path / "m.safetensors")
    said = cli("evaluate", model, photos)
    assert said.code == 0
    assert said.out.startswith("all of my photos: accuracy ")


def test_commonest_mistakes_end_the_page(run: Path, photos: Path, cli: Cli) -> None:
    found = json.loads(cli("evaluate", run, photos, "--json").out)
    names = [row["name"] for row in found["classes"]]
    mistakes = {
        f"{count} x {names[i]} called {names[j]}"
        for i, row in enumerate(found["confusion"]) for j, count in enumerate(row) if count and i != j
    }  # fmt: skip
    shown = [line for line in cli("evaluate", run, photos).out.splitlines() if " called " in line and " x " in line]
    assert len(shown) == min(3, len(mistakes)) > 0
    assert set(shown) <= mistakes


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["no/run"], "run=no/run: is no run and no model file (nothing); `vitreous train DATA` makes a run"),
        (["."], "run=.: is no run and no model file (a folder without model.safetensors); `vitreous train DATA` "),
        (["RUN", "no/where"], "data.source=no/where: no such set and no such folder; "),
        (["RUN", "digits"], "digits: class 0 is unknown to the model; use one of [red]:cat:, two words, Äpfel"),
        (["RUN", "--device", "cuda:99"], "device=cuda:99: PyTorch finds "),
    ],
)
def test_what_cannot_be_scored_is_one_line(words: list[str], line: str, run: Path, cli: Cli) -> None:
    said = cli("evaluate", *(str(run) if word == "RUN" else word for word in words))
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


def test_unfinished_run_is_named(unfinished: Path, cli: Cli) -> None:
    said = cli("evaluate", unfinished)
    wanted = f"run={unfinished}: has no model yet; finish it with `vitreous train --resume '{unfinished}'`\n"
    assert (said.code, said.err) == (2, wanted)
