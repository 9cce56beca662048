"""`vitreous shard`, and the other commands on the shards."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.cli.screen import Screen
from vitreous.data.sources import open_source

Cli = Callable[..., Any]


@pytest.fixture
def out(photos: Path, tmp_path: Path, cli: Cli) -> Path:
    folder = tmp_path / "my shards"
    assert cli("shard", photos, folder, "--max-samples", 25).code == 0
    return folder


def test_shards_are_written_and_counted(photos: Path, tmp_path: Path, cli: Cli) -> None:
    said = cli("shard", photos, tmp_path / "out", "--max-samples", "25")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[-2:] == [
        "images: images-000000.tar to images-000002.tar",
        f"{tmp_path / 'out'}: 61 images in 3 tar files, 0.2 MB",
    ]
    assert open_source(tmp_path / "out").classes == open_source(photos).classes


def test_result_is_one_json_document_if_requested(photos: Path, tmp_path: Path, cli: Cli) -> None:
    said = cli("shard", photos, tmp_path / "out", "--json")
    found = json.loads(said.out)
    assert (found["path"], found["num_samples"]) == (str(tmp_path / "out"), 61)
    assert found["shards"] == {"images": ["images-000000.tar"]}
    assert found["size_bytes"] == (tmp_path / "out" / "images-000000.tar").stat().st_size


def test_inspect_reports_the_same_for_shards_and_folder(photos: Path, out: Path, cli: Cli) -> None:
    shown = [json.loads(cli("inspect", data, "--json").out) for data in (photos, out, out / "images-{000000..2}.tar")]
    assert len({found["fingerprint"] for found in shown}) == 1
    assert len({str(found["class_counts"]) for found in shown}) == 1
    assert shown[1]["title"] == "my shards"


def test_run_trains_on_shards_and_is_evaluated_on_them(out: Path, run: Path, tmp_path: Path, cli: Cli) -> None:
    from tests.unit.cli.conftest import TINY

    said = cli("train", out, "--out", tmp_path / "run", "--epochs", "1", *TINY)
    assert (said.code, said.err) == (0, "")
    for words in ((tmp_path / "run",), (run, out)):
        said = cli("evaluate", *words, "--json")
        assert (said.code, json.loads(said.out)["num_images"] > 0) == (0, True)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("nothing", "x"), "data.source=nothing: no such set and no such folder"),
        (("nothing-{0..3}.tar", "x"), "data.source=nothing-{0..3}.tar: nothing-0.tar (one of 4 files) does not exist"),
        (("PHOTOS",), "OUT: missing argument of `vitreous shard`"),
        (("PHOTOS", "x", "--max-samples", "0"), "max_samples=0: must be at least 1"),
        (("PHOTOS", "x", "--max-bytes", "-1"), "max_bytes=-1: must be at least 1"),
        (("PHOTOS", "x", "--root", "y"), "data.root=y: only applies to a table"),
        (("PHOTOS", "PHOTOS"), "out="),
    ],
)
def test_invalid_request_is_reported_in_one_line(
    words: tuple[str, ...], line: str, photos: Path, tmp_path: Path, cli: Cli
) -> None:
    said = cli("shard", *(photos if word == "PHOTOS" else word for word in words))
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_removes_everything_and_is_reported(
    number: int, photos: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Screen, "_show_reading", lambda screen, fields: os.kill(os.getpid(), number))
    said = cli("shard", photos, tmp_path / "out")
    assert said.code == 130
    assert said.err == f"{tmp_path / 'out'}: stopped, and the unfinished folder was removed; run the command again\n"
    assert list(tmp_path.iterdir()) == []
