"""benchmark: runs and exported files on the same photos, in turns; files that are refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for

from vitreous.errors import ConfigError, DamagedFileError, DataError, NotARunError, VitreousError
from vitreous.model import save_model
from vitreous.use.benchmark import benchmark
from vitreous.use.export import proof
from vitreous.use.export.targets import TARGETS
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_TIMED_S", 0.01)
    monkeypatch.setattr("vitreous.use.benchmark.MOST_IMAGES", 9)


def about(predictor: Predictor) -> dict[str, Any]:
    """Return what an exported file says about itself, as far as it is read."""
    thresholds = None if predictor.thresholds is None else list(predictor.thresholds)
    values = {"classes": list(predictor.classes), "preprocess": predictor.preprocess.as_dict()}
    return {**values, "thresholds": thresholds, "name": "photos"}


@pytest.fixture(scope="module")
def program(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a program of torch; do not modify."""
    path = tmp_path_factory.mktemp("programs") / "model.pt2"
    TARGETS["torch"].write(run.predictor, path, about(run.predictor))
    return path


def test_same_model_answers_the_same_in_every_format(run: Run, program: Path, photos: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copy(run.path / "model.safetensors", tmp_path / "copy.safetensors"))
    events: list[dict[str, Any]] = []
    found = benchmark(
        [copied, run.path, program], photos, trust=True, batch_size=3, listener=lambda _, fields: events.append(fields)
    )
    assert list(found) == [str(copied), str(run.path), str(program)]
    assert [measured.num_images for measured in found.values()] == [9] * 3
    assert [measured.num_same for measured in found.values()] == [9] * 3
    same, other = found[str(run.path)], found[str(program)]
    assert same.largest_difference == 0
    assert 0 <= other.largest_difference < 1e-3
    assert min(measured.images_per_s for measured in found.values()) > 0
    assert (same.size_bytes, other.size_bytes) == (copied.stat().st_size, program.stat().st_size)
    assert [event["done"] for event in events] == list(range(1, 10))


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_exported_files_are_opened_by_their_runtimes(to: str, run: Run, photos: Path, tmp_path: Path) -> None:
    try:
        TARGETS[to].check_packages(to)
    except VitreousError as error:
        pytest.skip(str(error))
    path = tmp_path / f"model{TARGETS[to].suffix}"
    TARGETS[to].write(run.predictor, path, about(run.predictor))
    paths = [run.path, path, *([path / "openvino_model.xml"] if to == "openvino" else [])]
    first, *others = benchmark(paths, photos).values()
    for other in others:
        assert (other.num_same, first.num_images) == (9, 9)
        assert other.largest_difference < 1e-3
        size = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
        assert other.size_bytes == size


def test_photos_are_generated_for_any_channels_and_labels(tmp_path: Path) -> None:
    made = predictor_for(models.make_model(in_chans=1, img_size=(8, 8)))
    values = {**about(made), "temperature": 1.7, "task": "multilabel", "thresholds": [0.1, 0.3, 0.5, 0.7, 0.9]}
    save_model(tmp_path / "gray.safetensors", made.model, values)
    (found,) = benchmark([tmp_path / "gray.safetensors"]).values()
    assert (found.num_images, found.num_same, found.largest_difference) == (9, 9, 0.0)


def other_model(run: Run, folder: Path, **changes: Any) -> Path:
    """Write a model file that differs from the run in some of its metadata."""
    values = about(run.predictor) | {"temperature": 1.0} | changes
    save_model(folder / "other.safetensors", run.predictor.model, values)
    return folder / "other.safetensors"


def test_other_classes_are_refused(run: Run, tmp_path: Path) -> None:
    other = other_model(run, tmp_path, classes=["a", "b", "c"])
    with pytest.raises(ConfigError, match=rf"^{other}: has other classes than {run.path}; compare models of the same"):
        benchmark([run.path, other])


def test_other_channels_are_refused(tmp_path: Path) -> None:
    paths = []
    for channels in (1, 3):
        made = predictor_for(models.make_model(in_chans=channels))
        paths.append(tmp_path / f"{channels}.safetensors")
        save_model(paths[-1], made.model, {**about(made), "temperature": 1.0})
    with pytest.raises(ConfigError, match=r"3\.safetensors: has other channels than .*1\.safetensors; compare"):
        benchmark(paths)


def test_model_that_is_given_twice_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r": is given twice; give each model once$"):
        benchmark([run.path, run.path])


def test_program_with_pickle_is_only_opened_if_trusted(program: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.pt2: may contain code, .*; add --trust if you"):
        benchmark([program])


@pytest.mark.parametrize("name", ["broken.onnx", "broken.xml", "broken.pt2"])
def test_file_that_cannot_be_opened_is_named(name: str, tmp_path: Path) -> None:
    to = {"onnx": "onnx", "xml": "openvino", "pt2": "torch"}[name.rpartition(".")[2]]
    try:
        TARGETS[to].check_packages(to)
    except VitreousError as error:
        pytest.skip(str(error))
    (tmp_path / name).write_bytes(b"<net no model")
    with pytest.raises(DamagedFileError, match=rf"{name}: cannot be opened \(.*\); give a file that `vitreous export`"):
        benchmark([tmp_path / name], trust=True)


def test_onnx_file_of_another_tool_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript", reason="is installed with ONNX")
    pytest.importorskip("onnxruntime", reason="runs ONNX files")
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", sides[:1], sides[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "other.onnx")
    with pytest.raises(DamagedFileError, match=r"other\.onnx: cannot be opened \(.*classes.*\); give a file that"):
        benchmark([tmp_path / "other.onnx"])


def test_page_and_missing_model_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!doctype html>")
    with pytest.raises(ConfigError, match=r"page\.html: a page runs in a browser, not here; leave it out$"):
        benchmark([run.path, tmp_path / "page.html"])
    with pytest.raises(NotARunError, match=r"none\.onnx: does not exist"):
        benchmark([tmp_path / "none.onnx"])


def test_photos_that_cannot_be_decoded_are_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^.*a\.png: .*, like all of 1 image; give photos that can be decoded$"):
        benchmark([run.path], tmp_path)
    Image.new("RGB", (20, 30), "red").save(tmp_path / "b.png")
    events: list[Any] = []
    (found,) = benchmark([run.path], tmp_path, listener=lambda *event: events.append(event)).values()
    assert found.num_images == 1
    assert [fields["skipped"][0][0] for kind, fields in events if kind == "skipped"] == [str(tmp_path / "a.png")]
