"""Cases of `use/export/`: what cannot be exported, and how else it can be used."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from tests.advice.run_cases import model_file
from tests.advice.training_cases import fruit
from tests.advice.use_cases import finished
from tests.advice.walk import Refusals, case

from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.export import targets
from vitreous.use.export.exporter import export, read_exports
from vitreous.use.export.resize import PillowResize
from vitreous.use.export.targets import TARGETS
from vitreous.use.predict.predictor import Predictor

NAMED = {"name": "model", "thresholds": None}


@case
def files_to_export(folder: Path) -> Refusals:
    run, out = finished(folder), folder / "model.pt2"
    yield lambda: export(run, "torhc", out), "did you mean torch?"
    yield lambda: export(run, "torch", out, int8=True), "leave it out, or use --to onnx"
    yield lambda: export(run, "torch", out, max_drop=1.0), "add --int8, or leave it out"
    assert export(run, "torch", out).proof.num_same
    yield lambda: export(run, "torch", out), "choose another name with --out"
    assert export(run, "torch", folder / "other.pt2").path.is_file()
    exports = RunFolder(run).exports
    exports.write_text("[1", encoding="utf-8")
    yield lambda: read_exports(RunFolder(run)), "delete it, and export again"
    exports.unlink()
    assert export(run, "torch", folder / "third.pt2").path.is_file()


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
        yield lambda: page(predictor, folder / "model.html", NAMED), "use --to onnx"
    with patch.object(targets, "_MOST_BYTES", 100):
        yield lambda: onnx(predictor, folder / "model.onnx", NAMED), "use --to torch"
    with patch("torch.export.export", side_effect=RuntimeError("no such operator")):
        yield lambda: program(predictor, folder / "model.pt2", NAMED), "use `vitreous predict` for it"
    assert program(predictor, folder / "model.pt2", NAMED)
    with patch("importlib.util.find_spec", return_value=None):
        yield lambda: TARGETS["onnx"].check_packages("onnx"), "pip install 'vitreous[export]'"
    TARGETS["torch"].check_packages("torch")
