"""Bodies of requests and answers, with schemas; predictions -> tensors of the Open Inference Protocol (V2)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from vitreous.errors import nearest
from vitreous.printable import printable
from vitreous.use.predict.predictor import BATCH_SIZE, Prediction, Predictor

MOST_IMAGES = BATCH_SIZE
"""Images of a request: a batch of `vitreous predict`, so that it has exactly the same answers."""


class Problem(BaseModel):
    """Why a request was refused."""

    error: str


class Images(BaseModel):
    """Image files in base64; `data:` URLs are taken too."""

    images: list[str] = Field(min_length=1, max_length=MOST_IMAGES)


class Classified(BaseModel):
    """An image as `vitreous predict --json` describes it."""

    image: str
    label: str
    probability: float
    probabilities: dict[str, float]
    error: str
    labels: list[str]
    unfamiliar: float | None = None
    is_unfamiliar: bool | None = None
    set: list[str] | None = None


class Predictions(BaseModel):
    """Images in the order of the request."""

    model: str
    version: str
    predictions: list[Classified]


class ImageTensor(BaseModel):
    """Image files in base64, `[n]`."""

    name: Literal["images"]
    datatype: Literal["BYTES"]
    shape: list[int]
    data: list[str] = Field(min_length=1, max_length=MOST_IMAGES)


class Output(BaseModel):
    """A tensor that is asked for."""

    name: str


class InferRequest(BaseModel):
    """A request of the protocol with one tensor of images; without outputs, all are returned."""

    id: str | None = None
    inputs: list[ImageTensor] = Field(min_length=1, max_length=1)
    outputs: list[Output] = []


def describe(predictor: Predictor) -> dict[str, list[dict[str, Any]]]:
    """Return name, type and shape of the tensors that a model takes and gives; -1 in a shape is any number."""
    outputs = {"probabilities": ("FP32", [-1, len(predictor.classes)]), "label": ("BYTES", [-1])}
    if predictor.familiarity is not None:
        outputs["unfamiliar"] = ("FP32", [-1])
    inputs = {"images": ("BYTES", [-1])}
    return {
        kind: [{"name": name, "datatype": datatype, "shape": shape} for name, (datatype, shape) in tensors.items()]
        for kind, tensors in (("inputs", inputs), ("outputs", outputs))
    }


def tensors(request: InferRequest, predictor: Predictor, predictions: Sequence[Prediction]) -> list[Mapping[str, Any]]:
    """Return the tensors that are asked for. Raises HTTPException 400 if the model does not give one of them."""
    known = {each["name"]: each for each in describe(predictor)["outputs"]}
    asked = [output.name for output in request.outputs] or list(known)
    for name in asked:
        if name not in known:
            raise HTTPException(400, f"outputs={printable(name)}: no such output; {nearest(name, known)}")
    values = {
        "probabilities": [value for prediction in predictions for value in prediction.probabilities],
        "label": [prediction.label for prediction in predictions],
        "unfamiliar": [prediction.unfamiliar for prediction in predictions],
    }
    count = len(predictions)
    return [known[name] | {"shape": [count, *known[name]["shape"][1:]], "data": values[name]} for name in asked]
