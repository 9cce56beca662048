"""`vitreous predict` -> the predicted classes of images, printed or written to a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.options import AsJson, Count
from vitreous.cli.screen import Screen, print_json
from vitreous.errors import DecodeError
from vitreous.training.machine.device import resolve_device
from vitreous.use.evaluate.sets.decide import decisions
from vitreous.use.predict.inputs import list_images, unreadable_text
from vitreous.use.predict.predictor import Prediction, Predictor
from vitreous.use.predict.table import check_table_path, join_names, write_table
from vitreous.wording import plural


@Parameter(name="*")
@dataclass(frozen=True)
class PredictOptions:
    """Options of `vitreous predict`.

    Attributes:
        out: Write a .csv, .jsonl or .parquet file instead of printing one line per image.
        tta: Average over this many views of each image (test-time augmentation); 2 views take twice the time.
        coverage: Add a set of classes that contains the true one with this probability, e.g. 0.95.
        sets: How sets are made: lac (default; the smallest), aps or raps (larger for difficult images); lac-per-class,
            aps-per-class or raps-per-class have the coverage for each class.
        reject: Mark uncertain predictions such that the others have this accuracy, e.g. 0.9.
        device: auto, cpu, cuda, cuda:1 or mps.
        as_json: Print one JSON document instead of lines.
    """

    out: Path | None = None
    tta: Count = 1
    coverage: float | None = None
    sets: str | None = None
    reject: float | None = None
    device: str = "auto"
    as_json: AsJson = False


def predict(
    run: Path,
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    options: PredictOptions = PredictOptions(),
) -> None:
    """Classify images.

    Args:
        run: Run folder, a model.safetensors file, or hf://organization/name.
        images: Image files, or folders of them.
        options: All other options.
    """
    out, as_json = options.out, options.as_json
    if out is not None:
        check_table_path(out)
    predictor = Predictor.load(run, resolve_device(options.device)).with_views(options.tta)
    decide = decisions(run, predictor, options.coverage, options.sets, options.reject)
    files = list_images(images)
    predictions: list[Prediction] = []
    with Screen(stderr=as_json) as screen:
        for prediction in map(decide, predictor.stream(files)):
            predictions.append(prediction)
            screen.listen("reading", {"what": "predicting", "done": len(predictions), "total": len(files)})
            if out is None and not as_json and not prediction.error:
                mark = "; unlike the training images" if prediction.is_unfamiliar else ""
                screen.say(f"{prediction.image}: {labels_line(prediction, predictor)}{mark}")
    if out is not None:
        write_table(out, predictions, predictor.classes)
        screen.say(f"{plural(len(predictions), 'prediction')} in {out}")
    if as_json:
        print_json([prediction.as_dict(predictor.classes) for prediction in predictions])
    unreadable = [prediction.error for prediction in predictions if prediction.error]
    if unreadable:
        raise DecodeError(unreadable_text(unreadable, len(predictions), "classified"))


def labels_line(prediction: Prediction, predictor: Predictor) -> str:
    """Return the predicted labels with their probabilities, e.g. `cat (93.1%)`, and what else was asked for."""
    by_name = dict(zip(predictor.classes, prediction.probabilities, strict=True))
    found = [f"{label} ({by_name[label]:.1%})" for label in prediction.labels]
    best = max(by_name, key=by_name.__getitem__)
    label = ", ".join(found) or f"no label (the most probable is {best}, {by_name[best]:.1%})"
    chosen = "" if prediction.set is None else f", set: {join_names(prediction.set)}"
    return f"{label}{chosen}{', rejected' if prediction.rejected else ''}"
