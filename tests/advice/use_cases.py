"""Cases of `use/`: evaluating, comparing and inspecting runs, and the images and tables that they read and write."""

import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from tests.advice.run_cases import model_file
from tests.advice.training_cases import fruit, request, stopped
from tests.advice.walk import Refusals, case

from vitreous.cli.look.evaluate import EvaluateOptions
from vitreous.cli.look.evaluate import evaluate as evaluate_command
from vitreous.cli.look.report import report
from vitreous.cli.main import main
from vitreous.model.weights import export_weights, load_model
from vitreous.model.weights.table import Hints
from vitreous.tensor_file import write_tensor_file
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.use.evaluate.evaluator import evaluate
from vitreous.use.evaluate.metrics.costs import read_costs
from vitreous.use.evaluate.stored import stored_evaluation
from vitreous.use.inspect import DataOptions, inspect
from vitreous.use.predict.predictor import Predictor
from vitreous.use.predict.table import check_table_path, read_held_out
from vitreous.use.report.comparison import write_comparison
from vitreous.use.series.compare import compare


def finished(folder: Path, name: str = "run", **options: object) -> Path:
    """Train a run on the fruit in a folder, which is written first if it is not there."""
    if not (folder / "fruit").exists():
        fruit(folder)
    return run_training(request(folder, name, train__epochs=0.5, **options)).path


@case
def evaluations(folder: Path) -> Refusals:
    run = finished(folder, "my run")
    data, other = folder / "fruit", fruit(folder, "other")
    advice = f"give other data: `vitreous evaluate '{run}' DATA`"
    moved = Path(shutil.copy(run / "model.safetensors", folder / "moved.safetensors"))
    yield lambda: evaluate(moved), f"`vitreous evaluate {moved} DATA`"
    assert evaluate(moved, str(other))
    (data / "kiwi" / "0.png").rename(folder / "0.png")
    yield lambda: evaluate(run), advice
    (folder / "0.png").rename(data / "kiwi" / "0.png")
    blind = finished(folder, "blind", data__test_ratio=0.0, data__val_ratio=0.0)
    yield lambda: evaluate(blind), f"`vitreous evaluate {blind} DATA`"
    assert evaluate(blind, str(other))
    assert evaluate(run, str(other))
    assert evaluate(run)
    (other / "kiwi").rename(other / "kiwis")
    yield lambda: evaluate(run, str(other)), "did you mean kiwi?"
    (other / "kiwis").rename(other / "kiwi")
    contents = {path: path.read_bytes() for path in other.glob("*/*.png")}
    for path in contents:
        path.write_bytes(contents[path][:-60])
    yield lambda: evaluate(run, str(other)), "check them with `vitreous inspect`"
    yield lambda: inspect(str(other), options=DataOptions(pretrained=str(run))), "replace them"
    for path in contents:
        path.write_bytes(contents[path])
    assert inspect(str(other), options=DataOptions(pretrained=str(run)))


@case
def views_and_changed_photos(folder: Path) -> Refusals:
    run = finished(folder)
    yield lambda: evaluate(run, num_views=13), "use 1 to "
    assert evaluate(run, num_views=Predictor.load(run).with_views(6).views.shape[0])  # type: ignore[union-attr]
    words = ["evaluate", str(run), "--tta", "2", "--robustness"]
    yield lambda: evaluate_command(run, options=EvaluateOptions(tta=2, robustness=True)), "omit one"
    assert main(words[:-1]) == 0
    assert main([*words[:2], words[-1]]) == 0


@case
def targets_of_a_teacher(folder: Path) -> Refusals:
    options = {"objective__teacher": str(finished(folder, "teacher")), "objective__teacher_views": "fixed"}
    begun = stopped(request(folder, "student", **options))
    write_tensor_file(begun.teacher, {"targets": torch.ones(2, 3)}, {})
    resumed = TrainRequest(resume=begun.path)
    yield lambda: run_training(resumed), "delete it to let the teacher see the images again"
    begun.teacher.unlink()
    assert run_training(resumed).model.is_file()


@case
def predictions_of_runs(folder: Path) -> Refusals:
    one, two = finished(folder, "one"), finished(folder, "two")
    path = two / "predictions.csv"
    text = path.read_text()
    header, *rows = text.splitlines(keepends=True)
    path.write_text(header + rows[0] * 2 + "".join(rows))
    yield lambda: compare(one, two), "rename them and train again"
    metadata = Predictor.load(two).metadata
    RunFolder(two).outputs.unlink()
    yield lambda: stored_evaluation(RunFolder(two), metadata, "test"), "train again"
    path.write_text("x\n")
    yield lambda: read_held_out(path), "train"
    path.unlink()
    yield lambda: compare(one, two), "compare runs that have some"
    path.write_text(header + "".join(row.replace(".png", "x.png") for row in rows))
    yield lambda: compare(one, two), "compare runs that were tested on the same images"
    path.write_text(text)
    assert compare(one, two).num_images
    assert read_held_out(path)
    assert stored_evaluation(RunFolder(two), metadata, "test")


@case
def reports(folder: Path) -> Refusals:
    one, two, page = finished(folder, "one"), finished(folder, "two"), folder / "page.html"
    yield lambda: write_comparison([one, one], page), "give 2 to 12 runs"
    write_comparison([one, two], page)
    page.unlink()
    yield lambda: report(one, out=page), "choose another name"
    report(one, out=folder / "other.html")


@case
def tables_of_predictions(folder: Path) -> Refusals:
    table = folder / "any.csv"

    def read(text: str) -> object:
        table.write_text(text)
        return evaluate(table)

    yield lambda: read("path,label\na,b\n"), "name one of them true"
    assert read("path,true,predicted\na,b,b\n")
    yield lambda: read("true,predicted\n"), "add one row per image"
    yield lambda: read("true,predicted\na,\n"), "correct the row"
    assert read("true,predicted\na,a\n")
    rows = "true,predicted,p_a,p_b\na,a,0.5,0.4\n"
    yield lambda: read(rows), "correct it, or leave out"
    assert read(rows.replace("0.4", "0.5"))
    assert read("true,predicted\na,a\n")
    with patch("vitreous.use.predict.table._MOST_PROBABILITIES", 1):
        yield lambda: read(rows.replace("0.4", "0.5")), "leave out the columns p_CLASS"
        assert read("true,predicted\na,a\n")
    yield lambda: evaluate(table, "fruit"), "omit them"
    yield lambda: evaluate(table, num_views=2), "omit it"
    assert evaluate(table)
    yield lambda: evaluate(table, cost=["a:b=2"]), "add the columns p_CLASS"
    table.write_text(rows.replace("0.4", "0.5"))
    assert evaluate(table, cost=["a:b=2"])


@case
def costs_of_mistakes(folder: Path) -> Refusals:
    classes = ("defect", "good")
    yield lambda: read_costs(["defect=20"], classes), "e.g. defect:good=20"
    assert read_costs(["defect:good=20"], classes) == read_costs({("defect", "good"): 20}, classes)
    yield lambda: read_costs(["defekt:good=20"], classes), "did you mean defect?"
    yield lambda: read_costs(["defect:good=-1"], classes), "correct it"
    yield lambda: read_costs(["defect=20"], classes, are_labels=True), "write LABEL:miss=COST or LABEL:false-alarm=COST"
    assert read_costs(["defect:miss=20", "defect:false-alarm=20"], classes, are_labels=True)
    yield lambda: read_costs(["defect:good=20"], classes, are_labels=True), "use one of false-alarm, miss"


@case
def images_from_python(folder: Path) -> Refusals:
    predictor = Predictor.load(model_file(folder / "model.safetensors"))
    yield lambda: list(predictor.predict({"x": 1})), "give paths, encoded bytes, PIL images"  # type: ignore[arg-type]
    for shape, right in (((5, 8, 9), (8, 9, 3)), ((7,), (7, 7)), ((1, 1, 1, 3, 8, 9), (1, 3, 8, 9))):
        yield lambda shape=shape: list(predictor.predict(np.zeros(shape, np.uint8))), "bring it into such a shape"
        assert list(predictor.predict(np.zeros(right, np.uint8)))
    yield lambda: list(predictor.predict(torch.zeros(3, 9, 3))), "bring it into such a shape"
    assert list(predictor.predict(torch.zeros(9, 3, 3)))
    yield lambda: list(predictor.predict(torch.zeros(3, 8, 9, dtype=torch.complex64))), "convert it to uint8 or float"
    assert list(predictor.predict(torch.zeros(3, 8, 9)))
    model_file(folder / "model.safetensors", task="multilabel", thresholds=[0.5, 2.0])
    yield lambda: Predictor.load(folder / "model.safetensors"), "use the model file of a run"
    assert Predictor.load(model_file(folder / "model.safetensors", task="multilabel", thresholds=[0.5] * 3))


@case
def files_to_inspect_and_write(folder: Path) -> Refusals:
    path = model_file(folder / "model.safetensors")
    hints = Hints(architecture={"num_heads": 2})
    yield lambda: inspect(str(path), weights=hints), "leave out --architecture and --weights"
    assert inspect(str(path))
    foreign = export_weights(load_model(path), folder / "timm.safetensors", to="timm")
    assert inspect(str(foreign), weights=hints)
    with patch.dict(sys.modules, {"pyarrow": None}):
        yield lambda: check_table_path(folder / "x.parquet"), "or another suffix"
        check_table_path(folder / "x.csv")
    check_table_path(folder / "x.parquet")
