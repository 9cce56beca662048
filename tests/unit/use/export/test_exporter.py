"""A run becomes a file that is compared with it: what is written, measured, stored, chosen and refused."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.errors import ConfigError, DamagedFileError, DataError, SaveError, UnknownNameError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.sets.decide import decisions
from vitreous.use.export import exporter
from vitreous.use.export.description import describe
from vitreous.use.export.exporter import Export, export, read_exports
from vitreous.use.export.proof import PYTHON, Proof
from vitreous.use.export.resize import PillowResize
from vitreous.use.export.snippet import UNLIKE
from vitreous.use.export.targets import TARGETS
from vitreous.use.run import Run

OUTSIDE = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "vitreous":
            raise ImportError("vitreous is not installed here")

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program as if vitreous were not installed."""


@pytest.fixture
def onnxruntime() -> Any:
    pytest.importorskip("onnxscript", reason="PyTorch's exporter to ONNX needs onnxscript")
    return pytest.importorskip("onnxruntime", reason="runs ONNX files")


def program(found: Export, photo: Path, folder: Path) -> list[str]:
    """Return what the printed program prints for a photo, in a process that cannot import vitreous."""
    (folder / "snippet.py").write_text(found.snippet, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-c", OUTSIDE, str(folder / "snippet.py"), str(photo)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="session")
def as_onnx(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The run as an ONNX file; do not modify."""
    pytest.importorskip("onnxscript", reason="PyTorch's exporter to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="runs ONNX files")
    own = Path(shutil.copytree(run.path, tmp_path_factory.mktemp("exported") / "run"))
    return export(own, "onnx", own.parent / "ä model.onnx")


@pytest.fixture(scope="session")
def as_torch(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The run as a program of torch; do not modify."""
    own = Path(shutil.copytree(run.path, tmp_path_factory.mktemp("exported") / "run"))
    return export(own, "torch", own.parent / "model.pt2")


@pytest.fixture(scope="session")
def as_openvino(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The run as a folder for OpenVINO; do not modify."""
    pytest.importorskip("openvino", reason="writes and runs OpenVINO's files")
    pytest.importorskip("nncf", reason="is installed with OpenVINO")
    own = Path(shutil.copytree(run.path, tmp_path_factory.mktemp("exported") / "run"))
    return export(own, "openvino", own.parent / "ä folder", max_drop=0)


def test_file_gives_the_answers_of_the_run(run: Run, as_onnx: Export) -> None:
    python, file = as_onnx.tried[PYTHON], as_onnx.proof
    assert (as_onnx.variant, as_onnx.to, as_onnx.is_own) == ("float32", "onnx", True)
    assert file.num_same == file.num_images == run.metrics["test"]["num_images"]
    assert file.largest_difference < 1e-3
    assert file.accuracy == python.accuracy == pytest.approx(run.accuracy)
    assert file.interval_95 == pytest.approx(run.metrics["test"]["interval_95"])
    assert file.size_bytes == as_onnx.path.stat().st_size


def test_result_is_stored_with_those_of_other_files(as_onnx: Export) -> None:
    folder = RunFolder(as_onnx.path.parent / "run")
    stored = read_exports(folder)["ä model.onnx"]
    assert stored["tried"]["float32"]["num_same"] == as_onnx.proof.num_same
    assert (stored["variant"], stored["data"]) == ("float32", as_onnx.data)
    folder.exports.write_text("[3", encoding="utf-8")
    with pytest.raises(DamagedFileError, match="delete it, and export again"):
        read_exports(folder)
    folder.exports.unlink()
    assert read_exports(folder) == {}


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
@pytest.mark.parametrize("kind", ["turned.jpg", "large.jpg", "see-through.png", "palette.gif", "gray.png"])
def test_printed_program_gives_the_answers_of_predict(
    to: str, kind: str, run: Run, photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found: Export = request.getfixturevalue(f"as_{to}")
    picture = Image.open(sorted(photos.rglob("*.png"))[5]).convert("RGB")
    if kind == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.resize((90, 50)).save(tmp_path / kind, exif=exif)
    elif kind == "large.jpg":
        picture.resize((700, 500)).save(tmp_path / kind, quality=95)
    elif kind == "see-through.png":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(tmp_path / kind)
    else:
        picture.convert("P" if kind == "palette.gif" else "L").save(tmp_path / kind)
    (expected,) = run.predict(tmp_path / kind)
    order = sorted(range(len(run.classes)), key=lambda number: -expected.probabilities[number])
    lines = program(found, tmp_path / kind, tmp_path)
    assert lines[len(order) :] == [UNLIKE] * expected.is_unfamiliar
    lines = lines[: len(order)]
    assert [line.rpartition(" ")[0] for line in lines] == [run.classes[number] for number in order]
    shown = [float(line.rpartition(" ")[2].rstrip("%")) / 100 for line in lines]
    assert shown == pytest.approx([expected.probabilities[number] for number in order], abs=2e-3)
    assert len(found.snippet.splitlines()) <= 20


def test_description_has_what_an_application_needs(run: Run) -> None:
    folder = RunFolder(run.path)
    described = json.loads(json.dumps(describe(run.predictor, folder, "photos")))
    assert (described["classes"], described["temperature"]) == (list(run.classes), run.predictor.temperature)
    assert described["preprocess"]["img_size"] == [8, 12]
    assert described["data_fingerprint"] == run.metadata["data_fingerprint"]
    least = described["sets"]["0.9"]
    decide = decisions(run.path, run.predictor, 0.9, None, None)
    for prediction in map(
        decide, run.predictor.predict([np.full((8, 12, 3), level, np.uint8) for level in (0, 90, 250)])
    ):
        inside = {name for name, p in zip(run.classes, prediction.probabilities, strict=True) if p >= least}
        assert set(prediction.set or ()) == inside | {prediction.label}
    assert describe(run.predictor, RunFolder(folder.path / "none"), "photos")["sets"] == {}
    assert outputs_of_run(folder)


def test_file_with_other_answers_is_not_kept(own_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_pixel(self: PillowResize, photos: torch.Tensor) -> torch.Tensor:
        return photos[:, :1, :1].permute(0, 3, 1, 2).expand(-1, -1, *self.img_size).float()

    monkeypatch.setattr(PillowResize, "forward", first_pixel)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(
        ConfigError,
        match=r"^to=torch: for .*bild \d+ ü\.png, a probability differs by 0\.\d+ from Python's \(at most 0\.01\), "
        r"so no file was kept; use another format, or `vitreous predict`$",
    ):
        export(own_run.path, "torch", out / "model.pt2")
    assert list(out.iterdir()) == []
    assert not RunFolder(own_run.path).exports.exists()


def test_folder_for_openvino_is_complete_and_described(run: Run, as_openvino: Export) -> None:
    files = sorted(as_openvino.path.iterdir())
    assert [file.name for file in files] == ["openvino_model.bin", "openvino_model.xml"]
    assert as_openvino.proof.size_bytes == sum(file.stat().st_size for file in files)
    assert as_openvino.variant == "float32"  # no number of photos shows that nothing is lost
    assert as_openvino.proof.num_same == as_openvino.proof.num_images == run.metrics["test"]["num_images"]
    assert set(as_openvino.tried) <= {PYTHON, "float32", "bfloat16"}
    assert read_exports(RunFolder(as_openvino.path.parent / "run"))["ä folder"]["variant"] == "float32"


def test_folder_that_exists_or_has_no_place_is_refused(own_run: Run, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="writes and runs OpenVINO's files")
    pytest.importorskip("nncf", reason="is installed with OpenVINO")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match=r"mine: already exists; choose another name with --out"):
        export(own_run.path, "openvino", tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"^out=.*none/m: the folder .*none does not exist; create it first$"):
        export(own_run.path, "openvino", tmp_path / "none" / "m")


def test_page_is_compared_with_the_weights_that_it_has(own_run: Run, tmp_path: Path) -> None:
    found = export(own_run.path, "html", tmp_path / "page.html")
    assert (found.variant, found.snippet, found.snippets, list(found.tried)) == ("int8", "", {}, [PYTHON, "int8"])
    assert 0 < found.proof.largest_difference < 0.1
    assert found.path.read_text("utf-8").startswith("<!doctype html>")


def test_model_file_needs_photos(lone_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a model file, .*; give labeled photos with --data"):
        export(lone_model, "torch", tmp_path / "model.pt2")
    found = export(lone_model, "torch", tmp_path / "model.pt2", data=str(photos))
    assert (found.proof.num_images, found.is_own) == (72, False)
    assert not (lone_model.parent / "export.json").exists()


def test_blind_run_needs_photos(blind_run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no test or validation images; give labeled photos with --data"):
        export(blind_run.path, "torch", tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"to": "onx"}, "to=onx: no such format; did you mean onnx?"),
        (
            {"to": "torch", "int8": True},
            "int8=True: is for --to onnx and openvino, not torch; leave it out, or use --to onnx",
        ),
        ({"to": "torch", "max_drop": 2.0}, "max_drop=2.0: is for weights of 8 bits; add --int8, or leave it out"),
        ({"to": "torch", "out": Path("model.onnx")}, "out=model.onnx: ends in .onnx; use one of .pt2"),
        (
            {"to": "torch", "out": Path("nowhere/m.pt2")},
            "out=nowhere/m.pt2: the folder nowhere does not exist; create it",
        ),
    ],
)
def test_request_without_sense_is_refused(words: dict[str, Any], message: str, run: Run) -> None:
    with pytest.raises(ConfigError) as caught:
        export(run.path, **words)
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, UnknownNameError) == (words["to"] == "onx")


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_text("mine")
    with pytest.raises(ConfigError, match=r"model\.pt2: already exists; choose another name with --out"):
        export(run.path, "torch", tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").read_text() == "mine"


def test_full_disk_is_explained(run: Run, tmp_path: Path) -> None:
    usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
    try:
        with pytest.raises(SaveError, match=r"could not be written there \(File too large\); free some space, or"):
            export(run.path, "torch", tmp_path / "model.pt2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))
    assert not list(tmp_path.iterdir())


def test_file_is_named_after_the_run(own_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_run.export("html").path == Path("own.html")
    assert own_run.export("html", "again.html").path == Path("again.html")


@pytest.mark.slow
def test_multilabel_and_gray_runs_are_exported(
    run_on: Callable[..., Run], photos: Path, tmp_path: Path, onnxruntime: Any
) -> None:
    names = sorted(photos.rglob("*.png"))
    rows = [f"{path},{path.parent.name if number % 3 else 'two words;Äpfel'}" for number, path in enumerate(names)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *(row.replace('<b>&"', "b") for row in rows)]), encoding="utf-8")
    made = run_on(table, name="several", **{"data.task": "multilabel", "data.in_chans": 1})
    found = export(made.path, "onnx", tmp_path / "several.onnx")
    assert found.proof.num_same == found.proof.num_images
    (expected,) = made.predict(names[0])
    assert sorted(line.rpartition(" ")[0] for line in program(found, names[0], tmp_path)) == sorted(expected.labels)


# Weights of 8 bits


@pytest.mark.slow
def test_weights_of_8_bits_are_tried_and_judged(own_run: Run, tmp_path: Path, onnxruntime: Any) -> None:
    found = export(own_run.path, "onnx", tmp_path / "model.onnx", int8=True, max_drop=100)
    assert list(found.tried) == [PYTHON, "float32", "int8-dynamic", "int8-static"]
    fastest = min(("float32", "int8-dynamic", "int8-static"), key=lambda name: found.tried[name].latency_ms[0])
    assert found.variant == fastest
    assert found.path.stat().st_size == found.proof.size_bytes
    for name in ("int8-dynamic", "int8-static"):
        assert 0 < found.tried[name].largest_difference < 0.2
    about = onnxruntime.InferenceSession(str(found.path)).get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(own_run.classes)


@pytest.mark.slow
def test_openvino_has_bfloat16_and_8_bits(own_run: Run, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="writes and runs OpenVINO's files")
    pytest.importorskip("nncf", reason="finds the ranges of 8 bits for OpenVINO")
    found = export(own_run.path, "openvino", tmp_path / "model", int8=True, max_drop=100)
    has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    names = ["float32", "bfloat16", "int8", "int8-bfloat16"] if has_bf16 else ["float32", "int8"]
    assert list(found.tried) == [PYTHON, *names]
    for name in names[1:]:
        assert found.tried[name].largest_difference > 0
        assert found.tried[name].num_same >= 0.6 * found.proof.num_images


@pytest.mark.parametrize(("most", "chosen"), [(2.0, "float32"), (3.5, "int8-static"), (8.0, "int8-dynamic")])
def test_fastest_file_within_the_drop_is_chosen(most: float, chosen: str) -> None:
    proof = Proof(9, 9, 0.0, "", 1.0, (0.0, 1.0), (0.0, 0.0, 0.0), (9.0, 9.0), 1.0)
    tried = {
        PYTHON: replace(proof, latency_ms=(1.0, 1.0)),
        "float32": replace(proof, drop=(0.0, -0.5, 0.5)),
        "int8-dynamic": replace(proof, drop=(0.0, -0.07, 0.07), latency_ms=(3.0, 9.0), largest_difference=0.3),
        "int8-static": replace(proof, drop=(0.01, -0.01, 0.03), latency_ms=(5.0, 9.0), largest_difference=0.3),
    }
    assert exporter._judged("onnx", TARGETS["onnx"], tried, most) == chosen


@pytest.mark.parametrize(("num_same", "chosen"), [(94, "float32"), (95, "int8-static")])
def test_file_that_flags_other_photos_is_not_chosen(num_same: int, chosen: str) -> None:
    proof = Proof(100, 100, 0.0, "", 1.0, (0.0, 1.0), (0.0, 0.0, 0.0), (9.0, 9.0), 1.0, unfamiliar=(100, 0.0))
    tried = {
        PYTHON: proof,
        "float32": proof,
        "int8-static": replace(proof, latency_ms=(1.0, 1.0), unfamiliar=(num_same, 0.3)),
    }
    assert exporter._judged("onnx", TARGETS["onnx"], tried, 1.0) == chosen
    with pytest.raises(
        ConfigError, match=r"^to=onnx: a percentile of `unfamiliar` differs by 0\.3 from Python's \(at most"
    ):
        exporter._judged("onnx", TARGETS["onnx"], {**tried, "float32": tried["int8-static"]}, 1.0)
