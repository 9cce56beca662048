"""Cases of `use/export/`: what cannot be exported, and how else it can be used."""

import errno
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import torch
from tests.advice.model_cases import TINY
from tests.advice.run_cases import model_file
from tests.advice.training_cases import fruit
from tests.advice.use_cases import finished
from tests.advice.walk import Refusals, case
from torch._inductor.exc import InvalidCxxCompiler

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model import ModelConfig, build_model
from vitreous.model.weights import export_weights
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.export import exporter, targets
from vitreous.use.export.exporter import export, read_exports
from vitreous.use.export.hub import library
from vitreous.use.export.hub.library import open_library, write_library
from vitreous.use.export.page import runtime
from vitreous.use.export.page.runtime import FILES, VERSION, read_runtime, runtime_page
from vitreous.use.export.proof import PYTHON, Proof
from vitreous.use.export.resize import PillowResize
from vitreous.use.export.snippet import check_language
from vitreous.use.export.targets import TARGETS, check_compiler
from vitreous.use.predict.predictor import Predictor

NAMED = {"name": "model", "thresholds": None}


@case
def files_to_export(folder: Path) -> Refusals:
    run, out = finished(folder), folder / "model.pt2"
    yield lambda: export(run, "torhc", out), "did you mean torch?"
    yield lambda: export(run, "torch", out, int8=True), "leave it out, or use --to onnx"
    yield lambda: export(run, "torch", out, max_drop=1.0), "add --int8, or leave it out"
    yield lambda: export(run, "torch", out, runtime=folder), "leave it out, or use --to html"
    yield lambda: check_language("pyton", "torch"), "did you mean python?"
    yield lambda: check_language("cpp", "torch"), "leave it out, or use --to onnx"
    check_language("python", "torch")
    check_language("cpp", "onnx")
    assert export(run, "torch", out).proof.num_same
    yield lambda: export(run, "torch", out), "choose another name with --out"
    assert export(run, "torch", folder / "other.pt2").path.is_file()
    with patch("importlib.util.find_spec"):
        yield lambda: export(run, "timm", folder / "no" / "x"), "create it first"
    exports = RunFolder(run).exports
    exports.write_text("[1", encoding="utf-8")
    yield lambda: read_exports(RunFolder(run)), "delete it, and export again"
    exports.unlink()
    assert export(run, "torch", folder / "third.pt2").path.is_file()
    with patch.object(Path, "write_bytes", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        yield lambda: export(run, "torch", folder / "fourth.pt2"), "set TMPDIR to another folder"
    with patch("tempfile.tempdir", str(folder)):
        assert export(run, "torch", folder / "fourth.pt2").path.is_file()


@case
def models_of_other_libraries(folder: Path) -> Refusals:
    path, onnx = folder / "model.safetensors", TARGETS["onnx"].write

    def made(**keys: object) -> Predictor:
        config = ModelConfig(**{**TINY, "num_classes": 3, "img_size": (12, 12), **keys})
        preprocess = Preprocess((12, 12), config.in_chans, "squash", (0.5,) * config.in_chans, (0.5,) * config.in_chans)
        values = preprocess.as_dict() | {"value_range": ()}
        return Predictor(build_model(config).eval(), Preprocess.from_dict(values), ("a", "b", "c"), 1.0, {}, file=path)

    def padded() -> Predictor:
        return replace(made(), preprocess=replace(made().preprocess, fit="pad"))

    unbiased = made(patch_bias=False)
    yield lambda: export_weights(unbiased.model, folder / "x", to="timm", metadata={}), "use to=vitreous"
    export_weights(unbiased.model, path, to="vitreous", metadata={})
    for predictor, to in [(unbiased, "timm"), (made(in_chans=5), "timm"), (_clip(made), "hf")]:
        yield partial(write_library, predictor, folder / "a", to), "use --to onnx"
    assert onnx(unbiased, folder / "a.onnx", NAMED)
    yield lambda: write_library(padded(), folder / "b", "hf"), "use --to timm"
    write_library(padded(), folder / "c", "timm")
    with patch.object(library, "_open_transformers", lambda folder: (lambda images: torch.ones(2, 3), None)):
        write_library(made(), folder / "d", "hf")
        yield lambda: open_library(replace(made(), temperature=0.01), folder / "d", "hf"), "use --to onnx"


def _clip(made: Callable[..., Predictor]) -> Predictor:
    """Return a model that transformers has, but not as a classifier."""
    predictor = made(embed_norm=True, patch_bias=False, norm_eps=1e-5)
    with torch.no_grad():
        predictor.model.head.bias.zero_()
    return predictor


@case
def files_with_other_answers(folder: Path) -> Refusals:
    run, out = finished(folder), folder / "model.pt2"

    def wrong(self: PillowResize, photos: torch.Tensor) -> torch.Tensor:
        return photos[:, :1, :1].permute(0, 3, 1, 2).expand(-1, -1, *self.img_size).float()

    with (
        patch.object(PillowResize, "forward", wrong),
        patch.dict(TARGETS, torch=replace(TARGETS["torch"], tolerance=0.0)),
    ):
        yield lambda: export(run, "torch", out), "use another format, or `vitreous predict`"
    assert export(run, "html", folder / "model.html").path.is_file()


@case
def files_that_flag_other_photos(folder: Path) -> Refusals:
    run, out = finished(folder), folder / "model.pt2"
    proof = Proof(9, 9, 0.0, "", 1.0, (0.0, 1.0), (0.0, 0.0, 0.0), (9.0, 9.0), 1.0, unfamiliar=(9, 0.2))
    with patch.object(exporter, "prove", return_value={PYTHON: proof, "float32": proof}):
        yield lambda: export(run, "torch", out), "use another format, or `vitreous predict`"
    assert export(run, "html", folder / "model.html").path.is_file()


@case
def runtimes_of_a_page(folder: Path) -> Refusals:
    dist = folder / "node_modules" / "onnxruntime-web" / "dist"
    yield (
        lambda: read_runtime(folder),
        f"run `npm install onnxruntime-web@{VERSION}` and give node_modules/onnxruntime-web",
    )
    dist.mkdir(parents=True)
    for name in FILES:
        (dist / name).write_bytes(b"another version")
    yield lambda: read_runtime(folder), f"run `npm install onnxruntime-web@{VERSION}`"
    with patch.dict(FILES, dict.fromkeys(FILES, sha256(b"another version").hexdigest())):  # as if it were installed
        web = read_runtime(folder)
    predictor = Predictor.load(model_file(folder / "model.safetensors"))
    with patch.object(runtime, "_MOST_BYTES", 100):
        yield (
            lambda: runtime_page(predictor, "model", b"ONNX", web),
            "allow weights of 8 bits with --max-drop, or use --to onnx",
        )
    assert runtime_page(predictor, "model", b"ONNX", web)


@case
def photos_to_compare_on(folder: Path) -> Refusals:
    lone, other, out = model_file(folder / "model.safetensors"), fruit(folder, "other"), folder / "model.pt2"
    run = finished(folder)
    moved = (run / "model.safetensors").rename(folder / "moved.safetensors")
    assert lone.is_file()
    yield lambda: export(moved, "torch", out), "give labeled photos with --data"
    contents = {path: path.read_bytes() for path in other.glob("*/*.png")}
    for path in contents:
        path.write_bytes(contents[path][:-60])
    yield lambda: export(moved, "torch", out, data=str(other)), "check them with `vitreous inspect`"
    for path in contents:
        path.write_bytes(contents[path])
    assert export(moved, "torch", out, data=str(other)).path.is_file()


@case
def models_that_a_format_cannot_have(folder: Path) -> Refusals:
    predictor = Predictor.load(model_file(folder / "model.safetensors"))
    deep = replace(predictor, preprocess=replace(predictor.preprocess, value_range=(0.0, 4095.0)))
    program, page, onnx = (TARGETS[name].write for name in ("torch", "html", "onnx"))
    yield lambda: program(deep, folder / "model.pt2", NAMED), "use `vitreous predict` for this model"
    with patch("vitreous.use.export.page.pack.MOST_BYTES", 100):
        yield lambda: page(predictor, folder / "model.html", NAMED), "or use --to onnx"
    with patch.object(targets, "_MOST_BYTES", 100):
        yield lambda: onnx(predictor, folder / "model.onnx", NAMED), "use --to torch"
    with patch("torch.export.export", side_effect=RuntimeError("no such operator")):
        yield lambda: program(predictor, folder / "model.pt2", NAMED), "use `vitreous predict` for it"
    assert program(predictor, folder / "model.pt2", NAMED)
    with patch("importlib.util.find_spec", return_value=None):
        yield lambda: TARGETS["onnx"].check_packages("onnx"), "pip install 'vitreous[export]'"
    TARGETS["torch"].check_packages("torch")
    with patch("torch._inductor.cpp_builder.get_cpp_compiler", side_effect=InvalidCxxCompiler):
        yield check_compiler, "install g++ or clang++, or name one in the environment variable CXX"
