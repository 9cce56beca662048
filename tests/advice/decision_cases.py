"""Cases of `use/evaluate/` and `use/export/`: what a run cannot decide, judge, group or put into a page."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image
from tests.advice.run_cases import model_file
from tests.advice.training_cases import fruit, request
from tests.advice.use_cases import finished
from tests.advice.walk import Refusals, case
from tests.unit.use.evaluate.sets.made import made_outputs
from tests.unit.use.explain.models import make_model
from tests.unit.use.export.predictors import predictor_for

from vitreous.cli.look.evaluate import EvaluateOptions
from vitreous.cli.look.evaluate import evaluate as evaluate_command
from vitreous.cli.main import main
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.training.folder.outputs import SplitOutputs, write_outputs
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.start import run_training
from vitreous.use.evaluate.images import label_errors
from vitreous.use.evaluate.images.slices import slices_of_run
from vitreous.use.evaluate.outputs import outputs_of_run, reported
from vitreous.use.export.agreement import agreement_of_run
from vitreous.use.export.page import pack as packing
from vitreous.use.export.page.pack import pack
from vitreous.use.predict.predictor import Prediction, Predictor
from vitreous.use.run import Run


@case
def sets_of_classes_and_rejected_predictions(folder: Path) -> Refusals:
    run, image = Run(finished(folder)), folder / "fruit" / "kiwi" / "0.png"

    def predict(some: Run = run, **asked: object) -> list[Prediction]:
        return some.predict(image, **asked)  # type: ignore[arg-type]

    def hold_out(*, are_right: bool) -> None:
        made = made_outputs(60, 1, spread=3.0, classes=run.classes)
        true = made.true if are_right else (made.logits.argmax(dim=1) + 1) % 3
        logits = made.logits * run.predictor.temperature
        write_outputs(RunFolder(run.path).outputs, {"val": SplitOutputs(logits, true, np.arange(60))})

    hold_out(are_right=False)
    yield lambda: predict(reject=0.5), "train a better model"
    hold_out(are_right=True)
    assert predict(reject=0.5)
    yield lambda: predict(reject=0.995), "use at most 0.85"
    assert predict(reject=0.85)
    yield lambda: predict(sets="aps"), "add one, e.g. 0.95"
    assert predict(sets="aps", coverage=0.95)
    yield lambda: predict(coverage=0.999), "use at most 0.983"
    assert predict(coverage=0.983)
    yield lambda: predict(coverage=0.983, sets="aps-per-class"), "use aps, or a lower coverage"
    assert predict(coverage=0.983, sets="aps")
    assert predict(coverage=0.8, sets="aps-per-class")
    yield lambda: predict(coverage=0.9, tta=2), "leave out tta"
    assert predict(coverage=0.9)
    labels = Run(model_file(folder / "labels" / "model.safetensors", task="multilabel", thresholds=[0.5] * 3))
    yield lambda: predict(labels, coverage=0.9), "leave it out"
    assert predict(labels)
    moved = Run(model_file(folder / "moved" / "model.safetensors"))
    yield lambda: predict(moved, reject=0.5), "give the folder of a finished run with validation or test images"
    assert predict(run, reject=0.5)
    RunFolder(run.path).outputs.unlink()
    yield lambda: predict(run, coverage=0.5), "train it again if it is of an older version"
    assert predict(Run(finished(folder, "again")), coverage=0.5)


@case
def labels_and_groups_that_a_run_judges(folder: Path) -> Refusals:
    run = finished(folder)
    with patch.object(label_errors, "MOST_VALUES", 9):
        yield lambda: label_errors.predict_unseen(run), "leave out --labels, --html and --fix"
        assert main(["inspect", str(run)]) == 0
    files = sorted((folder / "fruit").glob("*/*.png"))
    for path in files:
        path.rename(path.with_name(f"_{path.name}"))
    yield lambda: label_errors.predict_unseen(run), "rename them back, or train again"
    assert len(label_errors.predict_unseen(finished(folder, "again"))[1]) == len(files)
    for path in files:
        path.with_name(f"_{path.name}").rename(path)
    assert len(label_errors.predict_unseen(run)[1]) == len(files)
    other = fruit(folder, "other")
    words = EvaluateOptions(slices=True)
    yield lambda: evaluate_command(run, str(other), options=words), "leave the data out"
    evaluate_command(run, options=words)
    RunFolder(run).outputs.unlink()
    yield lambda: slices_of_run(RunFolder(run)), "or train again if the run is of an older version"
    slices_of_run(RunFolder(finished(folder, "third")))


@case
def labels_and_groups_of_a_run_with_several_labels_per_image(folder: Path) -> Refusals:
    data = fruit(folder)
    names = [path.relative_to(data) for path in sorted(data.glob("*/*.png"))]
    table = folder / "tags.csv"
    table.write_text("path,label\n" + "".join(f"fruit/{name},{name.parent};ripe\n" for name in names))
    run = run_training(replace(request(folder), data=str(table))).path
    yield lambda: evaluate_command(run, options=EvaluateOptions(slices=True)), "leave out --slices"
    evaluate_command(run, options=EvaluateOptions())
    words = ["inspect", str(run)]
    yield lambda: label_errors.predict_unseen(run), "leave out --labels, --html and --fix"
    assert main(words) == 0


@case
def models_for_a_page(folder: Path) -> Refusals:
    run = finished(folder)
    predictor, advice = Predictor.load(run), "use `vitreous predict` for this model"
    for most in (1_000, len(pack(predictor).text) - 1):  # refused before, and after it is packed
        with patch.object(packing, "MOST_BYTES", most):
            yield lambda: pack(predictor), advice
    assert main(["predict", str(run), str(folder / "fruit" / "kiwi" / "0.png")]) == 0
    deep = Preprocess((12, 12), 3, mean=(0.5,) * 3, std=(0.5,) * 3, value_range=(0.0, 4095.0))
    file = model_file(folder / "deep" / "model.safetensors", preprocess=deep.as_dict())
    yield lambda: pack(Predictor.load(file)), advice
    Image.fromarray(np.full((9, 12), 1000, dtype=np.uint16)).save(folder / "deep.png")
    assert main(["predict", str(file), str(folder / "deep.png")]) == 0
    many = Predictor(
        make_model(in_chans=5), Preprocess((8, 12), 5, mean=(0.5,) * 5, std=(0.2,) * 5), tuple("abcde"), 1.0, {}
    )
    for unusual, shape in ((many, (9, 14, 5)), (predictor_for(make_model("merged")), (9, 14, 3))):
        yield lambda unusual=unusual: pack(unusual), advice
        assert unusual.predict(np.zeros(shape, np.uint8))
    assert pack(predictor)


@case
def held_out_images_of_a_page(folder: Path) -> Refusals:
    run = RunFolder(finished(folder))

    def compared(of: RunFolder = run) -> int:
        outputs, predictor = reported(outputs_of_run(of)), Predictor.load(of.path)
        assert outputs is not None
        of.agreement.unlink(missing_ok=True)
        return agreement_of_run(of, predictor, predictor.model, outputs).num_images

    contents = {path: path.read_bytes() for path in sorted((folder / "fruit").glob("*/*.png"))}
    for path in list(contents)[::2]:
        path.unlink()
    yield compared, "restore it, or train again"
    assert compared(RunFolder(finished(folder, "again")))
    for path, content in contents.items():
        path.write_bytes(content)
    assert compared()
