"""benchmarks/transfer_peers.py judges every tool on the images and in the time that it says."""

import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.contract.sources import ROOT

TOOL = """
import json, pathlib, sys
job = json.loads(pathlib.Path(sys.argv[1]).read_text())
photos, out = pathlib.Path(job["photos"]), pathlib.Path(job["out"])
files = [path for split in ("test", "val") for path in sorted((photos / split).rglob("*.png"), reverse=True)]
predicted = {path.relative_to(photos).as_posix(): path.parent.name for path in files}
for name in WRONG:
    (path,) = [path for path in predicted if path.startswith(name)]
    predicted[path] = "another"
(out / "result.json").write_text(json.dumps({"predicted": predicted, "settings": {"epochs": job["epochs"]}}))
"""
"""Predicts the class of each folder, except for the images in WRONG."""


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("transfer_peers")
    for name in ("transfer_peers", "peer_process", "held_out", "results"):
        sys.modules.pop(name, None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes with 5 training, 3 validation and 2 test images each, with names in a random order."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        for label in ("b", "a"):
            for number in range(count):
                path = tmp_path / "photos" / split / label / f"{generator.integers(10**6):06d}-{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def bench(peers: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> Any:
    (folder / "tool.py").write_text(program)
    monkeypatch.setattr("peer_process.PROGRAMS", folder)
    monkeypatch.setitem(peers.PEERS, "autogluon", "tool.py")
    return peers.Bench("autogluon", sys.executable, "", folder, folder)


def test_answers_are_those_of_the_validation_and_then_the_test_images_by_path(
    peers: ModuleType, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "WRONG = ['val/a/00001', 'val/b/00005', 'test/b/00002']\n"
    tool = bench(peers, tmp_path, monkeypatch, wrong + TOOL)
    found = peers.run_case(tool, photos, minutes=1, seed=0, stored={})
    assert found["correct"] == "101110" + "1101"
    assert (found["num_images"], found["num_correct"], found["epochs"]) == (10, 7, None)


def test_copies_have_the_content_of_the_photos_in_the_order_of_their_paths(
    peers: ModuleType, photos: Path, tmp_path: Path
) -> None:
    peers.lay_out(peers.split_photos(photos), tmp_path / "copies")
    for split in ("train", "val", "test"):
        originals = sorted((photos / split).rglob("*.png"))
        copies = sorted((tmp_path / "copies" / split).rglob("*.png"), key=lambda path: path.stem)
        assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in originals]
        assert [path.parent.name for path in copies] == [path.parent.name for path in originals]


def test_share_of_the_photos_has_some_of_every_class(peers: ModuleType, photos: Path, tmp_path: Path) -> None:
    peers.lay_out(peers.split_photos(photos), tmp_path / "copies", share=0.4)
    counts = {
        f"{split}/{label}": len(list((tmp_path / "copies" / split / label).iterdir()))
        for split in ("train", "val", "test")
        for label in "ab"
    }
    assert counts == {"train/a": 2, "train/b": 2, "val/a": 2, "val/b": 2, "test/a": 1, "test/b": 1}


def test_process_over_its_limit_is_ended_with_the_processes_that_it_started(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = f"import time; time.sleep(2); open({str(tmp_path / 'alive')!r}, 'w')"
    program = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(60)\n"
    tool = bench(peers, tmp_path, monkeypatch, program)
    with pytest.raises(subprocess.TimeoutExpired):
        tool.run(tmp_path, epochs=1, seconds=1, limit_s=1, seed=0)
    time.sleep(2)
    assert not (tmp_path / "alive").exists()


def test_failed_process_has_no_result_and_shows_what_it_printed(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = bench(peers, tmp_path, monkeypatch, "raise SystemExit('no weights at /nowhere')")
    with pytest.raises(subprocess.CalledProcessError) as error:
        tool.run(tmp_path, epochs=1, seconds=1, limit_s=60, seed=0)
    assert "no weights at /nowhere" in error.value.output


def test_pace_is_the_start_and_the_time_of_an_image_in_the_first_and_in_a_further_epoch(
    peers: ModuleType, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = bench(peers, tmp_path, monkeypatch, "")

    def run(copies: Path, *, epochs: int, **others: Any) -> dict[str, float]:
        num_train = len(list((copies / "train").rglob("*.png")))
        return {"wall_s": 14 + num_train * (0.5 + 0.2 * (epochs - 1))}

    monkeypatch.setattr(peers.Bench, "run", lambda _, *given, **others: run(*given, **others))
    monkeypatch.setattr(peers, "PROBES", ((4, 1), (8, 1), (8, 2)))
    pace = peers.measure_pace(tool, peers.split_photos(photos))
    assert pace == pytest.approx({"start_s": 14.0, "first_s": 0.5, "further_s": 0.2})


PACE = {"start_s": 14.0, "first_s": 0.05, "further_s": 0.04}


@pytest.mark.parametrize(
    ("seconds", "counts_steps", "epochs"),
    [
        (240, False, 5.0),  # 0.95 * 240 - 14 = 214 s: 50 s for the first epoch, then 4.1 times 40 s
        (240, True, 5.1),
        (60, False, 1.0),  # 43 s: less than the first epoch
        (60, True, 0.86),
        (10, True, 0.0),
    ],
)
def test_planned_epochs_fit_the_time(peers: ModuleType, seconds: float, counts_steps: bool, epochs: float) -> None:
    assert peers.planned_epochs(PACE, 1000, seconds, counts_steps=counts_steps) == pytest.approx(epochs)


def runs(key: str, *correct: str, epochs: float | None = 2.0) -> dict[str, Any]:
    found = {}
    for seed, answers in enumerate(correct):
        found[f"{key}, seed {seed}"] = {"correct": answers, "wall_s": 200.0 + seed, "epochs": epochs}
    return found


def test_row_compares_a_tool_with_vitreous_on_the_same_images_of_both_sets(peers: ModuleType) -> None:
    ours = runs("clothing-96px/4m", "1101", "1111") | runs("sign-digits/4m", "111111")
    ours |= {"sign-digits/4m, seed 9": {"num_correct": 3, "num_images": 6}}  # of an older version, without answers
    theirs = runs("hf/clothing-96px/4m", "0101") | runs("hf/sign-digits/4m", "111011")
    theirs |= runs("hf/clothing-96px/1m", "0000") | runs("timm/sign-digits/4m", "000000", epochs=None)
    vitreous, timm, hf = peers.table_rows(theirs, ours)
    assert vitreous == "| vitreous | 87.5% | 100.0% | – | 200 s | 2.0, 2.0 | 1 |"
    assert timm.startswith("| timm, `train.py` | – | 0.0% | +100.0 (")
    assert timm.endswith(") | 200 s | – | 1 |")
    differences = [1, 0, 0.5, 0, 0, 0, 0, 1, 0, 0, 1, -1]  # Bonett and Price add one image of each kind
    half = 1.959964 * np.std(differences) / 12**0.5
    low, high = (100 * (np.mean(differences) + sign * half) for sign in (-1, 1))
    assert (
        hf == f"| transformers, `Trainer` | 50.0% | 83.3% | +25.0 ({low:+.1f} to {high:+.1f}) | 200 s | 2.0, 2.0 | 1 |"
    )


def test_table_is_empty_before_a_tool_has_a_result(peers: ModuleType) -> None:
    assert peers.table_rows({}, runs("clothing-96px/4m", "11")) == []
