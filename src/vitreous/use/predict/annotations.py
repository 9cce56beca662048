"""Predictions -> a JSON file that Label Studio or FiftyOne imports; `data.sources.annotations` reads labels from both.

Both name an image by its path below a folder that all images are in; an address is kept as it is. An image that could
not be read has no prediction. What a table has in the columns `unfamiliar`, `set` and `rejected` is here too.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from vitreous import atomic
from vitreous.data.sources.shards.files import is_address
from vitreous.data.sources.shards.source import ShardImage
from vitreous.errors import ConfigError
from vitreous.use.predict.listing import Named
from vitreous.use.predict.predictor import Prediction
from vitreous.use.predict.table import OPTIONAL, check_table_path
from vitreous.wording import printable

Format = Literal["label-studio", "fiftyone"]
SUFFIX = ".json"


def check_annotations(path: Path, format_: str | None, listing: Iterable[Named]) -> None:
    """Raise ConfigError if predictions of these images cannot be written to the file, before images are read."""
    if format_ not in get_args(Format):
        choices = " or ".join(f"--format {name}" for name in get_args(Format))
        raise ConfigError(f"out={path}: JSON files are for labeling tools; add {choices}, or write a .jsonl file")
    check_table_path(path, (SUFFIX,), "labels.json")
    images = []
    for image, stored in listing:
        if isinstance(stored, ShardImage):
            raise ConfigError(f"format={format_}: {printable(image)} is in a tar file; extract the images first")
        images.append(image)
    folder, first = folder_of(images), dict[str, str]()
    for image in images if format_ == "fiftyone" else ():
        if (other := first.setdefault(_stem(image, folder), image)) != image:
            raise ConfigError(
                f"format=fiftyone: {printable(other)} and {printable(image)} have the same name without suffix; "
                "rename one, or use another format"
            )


def write_annotations(
    path: Path, format_: str, predictions: Sequence[Prediction], classes: Sequence[str], *, is_multilabel: bool
) -> str:
    """Write all predictions, and return how the tool finds the images. Raises SaveError if that fails."""
    folder = folder_of([prediction.image for prediction in predictions])
    if format_ == "fiftyone":
        labels = {_stem(one.image, folder): _target(one, classes, is_multilabel) for one in predictions}
        content: object = {"classes": list(classes), "labels": labels}
        how = f"its data_path is {folder}"
    else:
        content = [_task(one, folder) for one in predictions]
        how = f"start Label Studio with LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent}"
    atomic.write_json(path, content)
    return how


def folder_of(images: Iterable[str]) -> Path:
    """Return the deepest folder with all images that are files."""
    folders = {os.path.dirname(os.path.abspath(image)) for image in images if not is_address(image)}  # noqa: PTH100, PTH120
    return Path(os.path.commonpath(folders) if folders else ".").absolute()


def _target(prediction: Prediction, classes: Sequence[str], is_multilabel: bool) -> Any:
    """Return the label of FiftyOne, or a list of labels."""
    by_name = dict(zip(classes, prediction.probabilities, strict=False))
    found = [
        {"label": classes.index(name), "confidence": by_name[name], "attributes": _extra(prediction)}
        for name in prediction.labels
    ]
    return None if prediction.error else found if is_multilabel else found[0]


def _task(prediction: Prediction, folder: Path) -> dict[str, Any]:
    """Return a task of Label Studio with a prediction for `<Choices name="choice" toName="image">`."""
    image, done = prediction.image, []
    if not is_address(image):
        path = os.path.relpath(os.path.abspath(image), folder.parent)  # noqa: PTH100
        image = f"/data/local-files/?d={quote(Path(path).as_posix())}"
    if not prediction.error:
        chosen = {"from_name": "choice", "to_name": "image", "type": "choices",
                  "value": {"choices": list(prediction.labels)}}  # fmt: skip
        results = [chosen] if prediction.labels else []
        done = [{"model_version": "vitreous", "score": prediction.probability, "result": results}]
    return {"data": {"image": image, **_extra(prediction)}, "predictions": done}


def _extra(prediction: Prediction) -> dict[str, Any]:
    return {name: value for name in OPTIONAL if (value := getattr(prediction, name)) is not None}


def _stem(image: str, folder: Path) -> str:
    """Return the path of an image below a folder, without its suffix."""
    path = image if is_address(image) else Path(os.path.relpath(image, folder)).as_posix()
    return os.path.splitext(path)[0]  # noqa: PTH122  # Path would make one slash of the two in an address
