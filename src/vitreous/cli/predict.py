"""`vitreous predict` -> classes of images, on the screen or in a file."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vitreous.cli.screen import Screen, print_json
from vitreous.errors import DecodeError
from vitreous.train.device import resolve_device
from vitreous.use.predict.inputs import list_images
from vitreous.use.predict.predictor import Predictor
from vitreous.use.predict.table import check_table_path, write_table


def predict(
    run: Path,
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    out: Path | None = None,
    device: str = "cpu",
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Classify images.

    Args:
        run: Run folder, or a model.safetensors alone.
        images: Image files, or folders of them.
        out: A .csv, .jsonl or .parquet file instead of lines on the screen.
        device: auto, cpu, cuda, cuda:1 or mps.
        as_json: One JSON document instead of lines.
    """
    if out is not None:
        check_table_path(out)
    predictor = Predictor.load(run, resolve_device(device))
    files = list_images(images)
    predictions = []
    with Screen() as screen:
        for prediction in predictor.stream(files):
            predictions.append(prediction)
            screen.listen("reading", {"what": "predicting", "done": len(predictions), "total": len(files)})
            if out is None and not as_json and not prediction.error:
                screen.say(f"{prediction.image}: {prediction.label} ({100 * prediction.probability:.1f} %)")
    if out is not None:
        write_table(out, predictions, predictor.classes)
        screen.say(f"{len(predictions)} predictions in {out}")
    if as_json:
        print_json([vars(prediction) for prediction in predictions])
    failed = [prediction for prediction in predictions if prediction.error]
    if failed:
        more = f"; {len(failed) - 1} more could not be read either" if len(failed) > 1 else ""
        raise DecodeError(f"{failed[0].error}{more}; the other {len(predictions) - len(failed)} images are classified")
