"""Printed programs: what each model needs, in every language, whatever its classes and its file are called."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.browser.test_pixels import picture
from tests.node_packages import FOLDER, node_package
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for
from tests.unit.use.export.test_unfamiliar import THRESHOLDS, familiar_predictor

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.export.description import describe
from vitreous.use.export.snippet import LANGUAGES, UNLIKE, check_language, snippets
from vitreous.use.export.targets import write_onnx
from vitreous.use.predict.predictor import Predictor

HOSTILE = ('a "b" \\ \n', "`${1}` CLASSES", "Äpfel PATH 1️⃣", "'; process.exit(3); //", "?gray <b> \t\x07\u202e")
STUBS = {
    "opencv2/imgproc.hpp": "",
    "opencv2/imgcodecs.hpp": """
namespace cv {
  struct Mat { int rows = 9, cols = 14; unsigned char* data = nullptr; size_t total() const { return 126; } };
  enum { IMREAD_COLOR, COLOR_BGR2RGB };
  Mat imread(const char*, int) { return {}; }
  void cvtColor(const Mat&, Mat&, int) {}
}
""",
    "onnxruntime_cxx_api.h": """
#define ORT_TSTR(text) text
enum { OrtArenaAllocator, OrtMemTypeDefault };
namespace Ort {
  struct Env {};
  struct SessionOptions {};
  struct MemoryInfo { static MemoryInfo CreateCpu(int, int) { return {}; } };
  struct Value {
    const void* data;
    template <class T> static Value CreateTensor(MemoryInfo, T* data, size_t, const int64_t*, size_t) { return {data}; }
    template <class T> const T* GetTensorData() const { return static_cast<const T*>(data); }
  };
  const float probabilities[] = {0.3f, 0.45f, 0.1f, 0.55f, 0.9f};
  const double unfamiliar = 0.96;
  struct Session {
    Session(Env, const char*, SessionOptions) {}
    std::vector<Value> Run(int, const char* const*, const Value*, size_t, const char* const*, size_t) {
      return {{probabilities}, {&unfamiliar}};
    }
  };
}
""",
}
"""Headers in place of those of OpenCV and ONNX Runtime: every photo gets the same answer."""


def programs(predictor: Predictor, path: Path = Path("ä 'model'.onnx"), **changes: Any) -> Mapping[str, str]:
    return snippets(path, "onnx", describe(predictor, RunFolder(Path("none")), "model") | changes)


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "python"])
def test_program_has_the_parts_that_fit_the_model(language: str) -> None:
    color = programs(predictor_for(models.make_model()))[language]
    gray = programs(predictor_for(models.make_model(in_chans=1), THRESHOLDS))[language]
    unlike = programs(familiar_predictor("energy"))[language]
    for text in (color, gray, unlike):
        assert not re.search(r"(?m)^\?|\b(CLASSES|PATH|CHANNELS|FLAGGED|UNLIKE|THRESHOLDS|OUTPUTS)\b", text)
        assert "ä 'model'.onnx" in text
    assert "thresholds" in gray
    assert "thresholds" not in color
    assert ("0.95" in unlike, "unlike the training photos" in unlike) == (True, True)
    assert "unfamiliar" not in color
    assert ("19595" in gray or "BGR2GRAY" in gray, "19595" in color or "BGR2GRAY" in color) == (True, False)


def test_other_numbers_of_channels_have_a_program_in_python() -> None:
    described = describe(predictor_for(models.make_model()), RunFolder(Path("none")), "model")
    described["preprocess"] |= {"in_chans": 5}
    assert list(snippets(Path("m.onnx"), "onnx", described)) == ["python"]
    assert list(snippets(Path("m.pt2"), "torch", described)) == ["python"]
    assert snippets(Path("m.html"), "html", described) == {}


@pytest.mark.parametrize("to", ["aoti", "onnx", "torch", "openvino", "hf", "timm"])
def test_python_has_the_path_as_it_is(to: str) -> None:
    path = Path("😀 'ä' \\ \"b\" \x9b \u202e \U000e0041.file")
    described = describe(predictor_for(models.make_model()), RunFolder(Path("none")), "model")
    program = snippets(path, to, described)["python"]
    texts = [node.value for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Constant)]
    assert (f"local-dir:{path}" if to == "timm" else str(path)) in texts
    assert all(letter.isprintable() or letter == "\n" for letter in program)


@pytest.mark.parametrize("to", ["aoti", "onnx", "torch", "openvino", "hf", "timm"])
def test_python_begins_with_what_to_install(to: str) -> None:
    described = describe(predictor_for(models.make_model()), RunFolder(Path("none")), "model")
    program = snippets(Path("m"), to, described)["python"]
    imports = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {item.name for node in imports if isinstance(node, ast.Import) for item in node.names}
    installed = set(program.splitlines()[0].removeprefix("# pip install ").split())
    brought = {"timm": {"torch"}, "onnx": {"numpy"}, "openvino": {"numpy"}}.get(to, set())
    assert (names - {"json", "sys"}) | {"pillow"} == installed | brought


def test_language_that_does_not_fit_is_refused() -> None:
    for to in ("onnx", "torch", "html"):
        check_language("python", to)
    check_language("cpp", "onnx")
    with pytest.raises(UnknownNameError, match=r"^snippet=pyton: no such language; did you mean python\?$"):
        check_language("pyton", "onnx")
    with pytest.raises(
        ConfigError, match=r"^snippet=cpp: is for --to onnx, not torch; leave it out, or use --to onnx$"
    ):
        check_language("cpp", "torch")


@pytest.mark.parametrize("several", [False, True])
def test_javascript_has_the_names_as_they_are(several: bool, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node")
    made = predictor_for(models.make_model(), THRESHOLDS if several else None)
    text = programs(made, Path(HOSTILE[0]), classes=list(HOSTILE))["javascript"]
    lines = [line for line in text.splitlines() if not line.startswith(("import ", "const photo =", "const { data"))]
    shows = "(path) => { console.log(JSON.stringify([path, classes])); process.exit(0); }"
    head = f"const ort = {{ InferenceSession: {{ create: {shows} }} }}, data = [], info = {{}};"
    (tmp_path / "named.mjs").write_text("\n".join([head, *lines]), encoding="utf-8")
    found = subprocess.run(["node", tmp_path / "named.mjs"], capture_output=True, encoding="utf-8", check=True).stdout
    assert json.loads(found) == [HOSTILE[0], list(HOSTILE)]


@pytest.mark.parametrize("channels", [1, 3])
def test_cpp_compiles(channels: int, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    made = predictor_for(models.make_model(in_chans=channels), THRESHOLDS if channels == 1 else None)
    text = programs(made if channels == 1 else familiar_predictor("energy"), classes=list(HOSTILE))["cpp"]
    (tmp_path / "classify.cpp").write_text(text, encoding="utf-8")
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-isystem", "/usr/include/opencv4"]
    done = subprocess.run([*command, tmp_path / "classify.cpp"], capture_output=True, encoding="utf-8", check=False)
    if "No such file or directory" in done.stderr:
        pytest.skip("needs the headers of ONNX Runtime and OpenCV where g++ finds them")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("several", "expected"),
    [
        (False, ["class 4 90.0%", "class 3 55.0%", "class 1 45.0%", "class 0 30.0%", "class 2 10.0%"]),
        (True, ["class 4 90.0%", "class 1 45.0%", "class 0 30.0%"]),  # class 3 needs 0.6
    ],
)
def test_cpp_prints_what_the_model_answers(several: bool, expected: list[str], tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    files = STUBS | {"classify.cpp": programs(familiar_predictor("energy", several=several))["cpp"]}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = ["g++", "-std=c++17", "-I", tmp_path, tmp_path / "classify.cpp", "-o", tmp_path / "classify"]
    subprocess.run(command, check=True, timeout=200)
    found = subprocess.run([tmp_path / "classify", "a.jpg"], capture_output=True, encoding="utf-8", check=True).stdout
    assert found.splitlines() == [*expected, UNLIKE]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["turned.jpg", "see-through.png", "gray.png", "one channel"])
def test_javascript_gives_the_answers_of_predict(kind: str, tmp_path: Path) -> None:
    for name in ("onnxruntime-node", "sharp"):
        node_package(name)
    pytest.importorskip("onnxscript", reason="PyTorch's exporter to ONNX needs onnxscript")
    (tmp_path / "node_modules").symlink_to(FOLDER)
    made = familiar_predictor("neighbors")
    if kind == "one channel":
        made = predictor_for(models.make_model(in_chans=1), (0.0,) * 5)
    file = tmp_path / (kind if "." in kind else "color.png")
    photo, exif = Image.fromarray(picture(50, 90)), Image.Exif()
    if kind == "turned.jpg":
        exif[0x0112] = 6
    elif kind == "see-through.png":
        photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.convert("L" if kind == "gray.png" else photo.mode).save(file, exif=exif)
    write_onnx(made, tmp_path / "model.onnx", {"name": "model"})
    text = programs(made, tmp_path / "model.onnx")["javascript"]
    (tmp_path / "classify.mjs").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["node", tmp_path / "classify.mjs", file], capture_output=True, encoding="utf-8", check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (expected,) = made.predict([file])
    lines = [line.rpartition(" ") for line in done.stdout.splitlines()]
    flags = lines[5:]
    assert {name: float(value.rstrip("%")) / 100 for name, _, value in lines[:5]} == pytest.approx(
        dict(zip(made.classes, expected.probabilities, strict=True)), abs=2e-3
    )
    assert bool(flags) == expected.is_unfamiliar
