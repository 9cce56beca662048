"""Pages with ONNX Runtime: where it comes from, what they contain, and what is refused."""

import gzip
import hashlib
import json
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node_packages import node_package
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.use.export import exporter
from vitreous.use.export.exporter import export
from vitreous.use.export.page import runtime as runtime_module
from vitreous.use.export.page.runtime import VERSION, WAY_OUT, WebRuntime, read_runtime, runtime_page
from vitreous.use.export.proof import PYTHON, Proof
from vitreous.use.export.targets import TARGETS
from vitreous.use.run import Run

MODULE = (
    "var a=1,$b=import.meta.url;export{a as InferenceSession,$b as env,a as default};\n//# sourceMappingURL=x.map\n"
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a package was installed, with short files instead of those of `onnxruntime-web`."""
    dist = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    contents = {"ort.wasm.bundle.min.mjs": MODULE.encode(), "ort-wasm-simd-threaded.wasm": b"\0asm"}
    for name, content in contents.items():
        (dist / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(runtime_module, "FILES", hashes)
    return tmp_path


def test_module_becomes_a_script_that_defines_ort(package: Path) -> None:
    script = 'const ort=(()=>{var a=1,$b="page:///";return{InferenceSession:a,env:$b,default:a}})();\n'
    assert read_runtime(package) == WebRuntime(script, b"\0asm")
    assert read_runtime(package / "node_modules" / "onnxruntime-web").script == script


def test_other_files_are_refused(package: Path) -> None:
    (package / "node_modules" / "onnxruntime-web" / "dist" / "ort-wasm-simd-threaded.wasm").write_bytes(b"\0asn")
    with pytest.raises(
        ConfigError,
        match=r"^runtime=.*: ort-wasm-simd-threaded\.wasm is not that of version 1\.30\.0; "
        r"run `npm install onnxruntime-web@1\.30\.0`$",
    ):
        read_runtime(package)
    with pytest.raises(
        ConfigError,
        match=r"^runtime=.*nowhere: has no ort\.wasm\.bundle\.min\.mjs; run `npm install onnxruntime-web@1\.30\.0` "
        r"and give node_modules/onnxruntime-web$",
    ):
        read_runtime(package / "nowhere")


def test_files_of_the_package_have_the_known_contents() -> None:
    found = read_runtime(node_package("onnxruntime-web", VERSION))
    assert "MIT License" in found.script
    assert not re.search(r"</|import\.meta|\bexport\b\s*\{", found.script)
    assert found.wasm.startswith(b"\0asm")


def test_documentation_installs_the_same_version() -> None:
    text = (Path(__file__).parents[4] / "docs" / "export.md").read_text("utf-8")
    assert WAY_OUT.partition("`")[2].partition("`")[0] in text


def test_page_has_model_and_runtime_and_may_load_nothing_else() -> None:
    made = replace(predictor_for(models.make_model()), classes=("</script><b>", "b", "c", "d", "e"))
    text = runtime_page(made, "a & b", b"ONNX" * 99, WebRuntime("const ort = 1;\n", b"\0asm")).decode()
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; ")
    assert re.search(r"script-src 'sha256-[\w+/=]+' 'wasm-unsafe-eval'$", policy[1])
    data = json.loads(text.partition('<script type="application/json">')[2].partition("</script>")[0])
    assert gzip.decompress(b64decode(data["onnx"])) == b"ONNX" * 99
    assert gzip.decompress(b64decode(data["wasm"])) == b"\0asm"
    assert data["hidden"] == [round(255 * mean) for mean in made.preprocess.mean or ()]
    assert (data["classes"][0], data["flagged"]) == ("</script><b>", 0.95)
    assert "<title>a &amp; b</title>" in text
    assert text.count("const ort") == text.count("const Engine") == 1


def test_page_that_is_too_large_for_a_browser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "_MOST_BYTES", 9_000)
    with pytest.raises(
        ConfigError,
        match=r"^to=html: the page has 0 MB, and browsers read at most 0\.009 MB; allow weights of 8 bits with "
        r"--max-drop, or use --to onnx$",
    ):
        runtime_page(predictor_for(models.make_model()), "a", b"ONNX", WebRuntime("", b"\0asm"))


def test_plain_pages_run_no_webassembly(tmp_path: Path) -> None:
    TARGETS["html"].write(predictor_for(models.make_model()), tmp_path / "page.html", {"name": "page"})
    assert "wasm" not in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize("words", [{"to": "onnx"}, {"to": "torch"}])
def test_runtime_is_for_pages(words: dict[str, str], run: Run, package: Path) -> None:
    with pytest.raises(ConfigError, match=r"^runtime=.*: is for --to html, not \w+; leave it out, or use --to html$"):
        export(run.path, **words, runtime=package)


def test_large_model_asks_for_the_runtime_unless_a_browser_cannot_read_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.use.export.page.pack.MOST_BYTES", 100)
    with pytest.raises(ConfigError) as caught:
        TARGETS["html"].write(predictor_for(models.make_model()), tmp_path / "page.html", {"name": "page"})
    assert str(caught.value).endswith(f"; {WAY_OUT}")
    preprocess = Preprocess((8, 12), 5, "squash", (0.4,) * 5, (0.3,) * 5)
    five = replace(predictor_for(models.make_model()), model=models.make_model(in_chans=5), preprocess=preprocess)
    with pytest.raises(ConfigError, match=r"^data\.in_chans=5: a browser reads gray and color images; use --to onnx$"):
        TARGETS["html"].write(five, tmp_path / "page.html", {"name": "page"})


@pytest.mark.parametrize(("most", "chosen"), [(0.5, "float32"), (3.5, "int8-weights")])
def test_smallest_page_within_the_drop_is_chosen(most: float, chosen: str) -> None:
    proof = Proof(9, 9, 0.0, "", 1.0, (0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 9.0), 1.0)
    small = replace(proof, drop=(0.01, -0.01, 0.03), latency_ms=(5.0, 9.0))
    tried = {PYTHON: proof, "float32": proof, "int8-weights": small}
    assert exporter._judged("html", TARGETS["onnx"], tried, most) == chosen


@pytest.mark.slow
def test_run_becomes_a_page_with_the_runtime(own_run: Run, package: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="PyTorch's exporter to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="runs ONNX files")
    found = own_run.export("html", tmp_path / "page.html", runtime=package, max_drop=100)
    assert list(found.tried) == [PYTHON, "float32", "int8-weights"]
    sizes = {found.variant: found.path.stat().st_size}
    assert {name: proof.size_bytes for name, proof in found.tried.items() if proof.size_bytes} == sizes
    assert found.snippets == {}
    text = found.path.read_text("utf-8")
    data = json.loads(text.partition('<script type="application/json">')[2].partition("</script>")[0])
    assert data["classes"] == list(own_run.classes)
    assert gzip.decompress(b64decode(data["onnx"]))
