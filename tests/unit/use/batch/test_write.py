"""A folder of parts: the rows of one table, complete or absent, and continued only by the same request."""

import csv
import itertools
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.unit.use.batch.conftest import Begin, dying_once

from vitreous.errors import DamagedFileError, RunError, SaveError
from vitreous.training.folder.access import exclusive
from vitreous.training.folder.records import ignore
from vitreous.use.batch.part_folder import PartFolder, part_size
from vitreous.use.batch.write import Engine, Stopped
from vitreous.use.evaluate.sets.decide import Decisions
from vitreous.use.predict.listing import list_data
from vitreous.use.predict.predictor import Predictor
from vitreous.use.predict.table import write_table
from vitreous.use.run import Run


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all parts, read by csv, json or pyarrow."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".parquet":
            found += pyarrow.parquet.read_table(path).to_pylist()
        else:
            with path.open(encoding="utf-8", newline="") as file:
                found += csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)
    return found


def same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    assert len(names) == 7
    return names == sorted(path.name for path in other.iterdir()) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names if name != "manifest.json"
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_parts_have_the_rows_of_one_table(
    suffix: str, begin: Begin, images: list[str], run: Run, tmp_path: Path
) -> None:
    folder = begin(tmp_path / "parts", suffix=suffix)
    predictor, listing = Predictor.load(run.path), list_data(images)
    write_table(tmp_path / f"part-all{suffix}", list(predictor.stream_named(listing)), predictor.classes)
    assert rows(folder.path) == rows(tmp_path)
    assert len(rows(folder.path)) == len(listing) == 1369
    assert [facts["images"] for facts in folder.manifest["done"].values()] == [256, 256, 256, 256, 256, 89]


def test_image_that_cannot_be_read_is_a_row_with_the_reason(begin: Begin, broken_png: Path, tmp_path: Path) -> None:
    folder = begin(tmp_path / "parts")
    reason = f"{broken_png}: not an image that Pillow can read"
    assert [row["path"] for row in rows(folder.path) if row["error"]] == [str(broken_png)]
    assert folder.unreadable() == (1, [reason])
    assert begin(tmp_path / "parts").unreadable() == (1, [reason])


@pytest.mark.slow
def test_processes_write_the_same_files_although_one_is_killed(begin: Begin, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    begin(tmp_path / "here")
    begin(tmp_path / "there", Engine("local", "cpu", workers=2), change=dying_once(marker))
    assert marker.exists()
    assert same_files(tmp_path / "here", tmp_path / "there")
    assert multiprocessing.active_children() == []


def test_second_call_computes_only_what_is_missing(begin: Begin, tmp_path: Path) -> None:
    folder = begin(tmp_path / "parts").path
    shutil.copytree(folder, tmp_path / "copy")
    for name in ("part-000000.csv", "part-000004.csv"):
        (folder / name).unlink()
    (folder / ".part-000004.csv.x.tmp").write_text("of a process that was killed")
    kept = (folder / "part-000001.csv").stat().st_mtime_ns
    seen: list[int] = []
    begin(folder, listener=lambda kind, fields: seen.append(fields["done"]))
    assert seen == [1369 - 512, 1369 - 256, 1369]
    assert same_files(folder, tmp_path / "copy")
    assert (folder / "part-000001.csv").stat().st_mtime_ns == kept


def test_part_that_is_not_in_the_manifest_is_computed_again(begin: Begin, tmp_path: Path) -> None:
    folder = begin(tmp_path / "parts").path
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["done"]["part-000002.csv"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    whole = (folder / "part-000002.csv").read_bytes()
    (folder / "part-000002.csv").write_bytes(whole[:100])
    begin(folder)
    assert (folder / "part-000002.csv").read_bytes() == whole


def test_complete_folder_is_not_computed_again(begin: Begin, tmp_path: Path) -> None:
    begin(tmp_path / "parts")
    nowhere = Engine("ray", address="no.such.host:1")
    assert len(begin(tmp_path / "parts", nowhere).manifest["done"]) == 6


def test_other_model_is_refused(begin: Begin, own_run: Run, tmp_path: Path) -> None:
    begin(tmp_path / "parts")
    (own_run.path / "familiarity.safetensors").unlink(missing_ok=True)
    model = own_run.path / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(RunError, match=r"parts: its parts are from another model \(\S+ has changed\); choose another"):
        begin(tmp_path / "parts", run=own_run.path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": ["PHOTOS"]}, "its parts are of 1369 images, not 72"),
        ({"tta": 3}, "its parts were made with tta=1, not 3"),
        ({"suffix": ".jsonl"}, "its parts were made with format=csv, not jsonl"),
        ({"decide": Decisions((), "lac", np.array([0.5]), None)}, "its parts were made with limits=None, not [0.5]"),
        ({"decide": Decisions(confidence=0.25)}, "its parts were made with confidence=None, not 0.25"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_other_request_is_refused(
    change: dict[str, Any], said: str, begin: Begin, photos: Path, tmp_path: Path
) -> None:
    before = begin(tmp_path / "parts").manifest
    change = {name: [str(photos)] if value == ["PHOTOS"] else value for name, value in change.items()}
    with pytest.raises(RunError) as refused:
        begin(tmp_path / "parts", **change)
    assert str(refused.value) == f"out={tmp_path / 'parts'}: {said}; choose another folder, or delete it to start again"
    assert begin(tmp_path / "parts").manifest == before


def test_same_number_of_other_images_is_refused(begin: Begin, images: list[str], tmp_path: Path) -> None:
    begin(tmp_path / "parts")
    with pytest.raises(
        RunError, match=r"its parts are of other images \(a name, the order or a tar file has changed\)"
    ):
        begin(tmp_path / "parts", images=[images[-1], *images[:-1]])


def test_folder_of_something_else_is_refused(begin: Begin, photos: Path, tmp_path: Path) -> None:
    before = sorted(photos.rglob("*"))
    for path in (photos, tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(RunError, match=r"exists and has no manifest\.json; name a new or empty folder"):
            begin(path)
    assert sorted(photos.rglob("*")) == before
    with pytest.raises(SaveError, match="cannot be created"):
        begin(tmp_path / "no" / "parts")


@pytest.mark.parametrize(
    "change",
    [lambda m: m[:40], lambda m: m.replace("256", "-7"), lambda m: m.replace('"done"', '"gone"'), lambda m: "[]"],
)
def test_damaged_manifest_is_refused(change: Any, begin: Begin, tmp_path: Path) -> None:
    path = begin(tmp_path / "parts").path / "manifest.json"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"manifest\.json: cannot be read as \.json .*; choose another folder"):
        begin(tmp_path / "parts")


def test_only_one_process_writes_to_a_folder(begin: Begin, tmp_path: Path) -> None:
    folder = begin(tmp_path / "parts").path
    with exclusive(folder, ignore), pytest.raises(RunError, match=r"parts: another process is writing to it; wait"):
        begin(folder)


def test_folder_that_another_process_has_just_finished_is_not_begun_again(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def finished_meanwhile(folder: Path, *_: object) -> Iterator[None]:
        shutil.copytree(tmp_path / "other", folder, dirs_exist_ok=True)
        yield

    begin(tmp_path / "other")
    monkeypatch.setattr("vitreous.use.batch.part_folder.exclusive", finished_meanwhile)
    with pytest.raises(RunError, match="its parts were made with format=csv, not jsonl"):
        begin(tmp_path / "parts", suffix=".jsonl")


def test_signal_leaves_finished_parts_and_says_how_to_continue(begin: Begin, tmp_path: Path) -> None:
    def stop(kind: str, fields: Mapping[str, Any]) -> None:
        if fields["done"] == 512:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match=r"parts: stopped; 2 of 6 parts are finished; run the same command again") as got:
        begin(tmp_path / "parts", listener=stop)
    assert got.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        "manifest.json",
        "part-000000.csv",
        "part-000001.csv",
    ]
    begin(tmp_path / "whole")
    begin(tmp_path / "parts")
    assert same_files(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_command_is_continued_bit_for_bit(
    number: int, begin: Begin, run: Run, images: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "vitreous", "predict", str(run.path), *images, "--out", str(tmp_path / "parts")]
    command += ["--device", "cpu", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as running:
        until = time.monotonic() + 200
        while not list((tmp_path / "parts").glob("part-*")) and time.monotonic() < until:
            time.sleep(0.01)
        running.send_signal(number)
        said = running.communicate(timeout=200)[1]
    assert running.returncode == (130 if number == signal.SIGINT else -number)
    assert ("run the same command again to continue" in said) == (number == signal.SIGINT)
    assert 1 <= len(list((tmp_path / "parts").glob("part-*"))) < 6
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=200, check=False)
    assert done.returncode == 2
    assert "1 of 1,369 images could not be read" in done.stderr
    begin(tmp_path / "whole")
    assert same_files(tmp_path / "whole", tmp_path / "parts")


def test_clipped_values_of_all_parts_are_one_warning(begin: Begin, run: Run, tmp_path: Path) -> None:
    deep = np.full((9, 14), 60_000, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    predictor = Predictor.load(run.path)
    ranged = replace(predictor, preprocess=replace(predictor.preprocess, value_range=(0.0, 4095.0)))
    part = begin(tmp_path / "parts").manifest["done"]["part-000000.csv"]
    assert part["unreadable"] == 0
    from vitreous.use.batch.job import Job

    counted = Job.of(ranged, Decisions(), ".csv").part(list(list_data([str(tmp_path / "deep.png")] * 3)))
    assert counted.clipped.num_images == 3
    assert ranged.preprocess.scale.clipped.num_images == 0


@given(num_images=st.integers(1, 10**9), num_classes=st.integers(1, 100_000))
def test_parts_are_whole_batches_of_bounded_size(num_images: int, num_classes: int) -> None:
    size = part_size(num_images, num_classes)
    assert size % 64 == 0
    assert 256 <= size <= 8192
    assert size == 256 or size * num_classes <= 2_000_000
    assert num_images / size <= 1000 or size == 8192 or (size + 64) * num_classes > 2_000_000


def test_parts_cover_all_images_once() -> None:
    for count in (1, 255, 256, 257, 1000):
        folder = PartFolder(Path(), {"images": {"count": count}, "part_size": 256})
        ranges = [folder.images_of(number) for number in range(folder.num_parts)]
        assert list(itertools.chain(*ranges)) == list(range(count))
