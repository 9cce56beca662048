"""Bodies of requests and answers, with schemas; predictions -> tensors of the Open Inference Protocol (V2)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from vitreous.errors import nearest
from vitreous.use.predict.predictor import BATCH_SIZE, Prediction, Predictor
from vitreous.wording import printable

MOST_IMAGES = BATCH_SIZE
"""Images of a request: a batch of `vitreous predict`, so that it has exactly the same answers."""


Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]
_PIXEL = "R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="
_TENSOR: dict[str, Any] = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [_PIXEL]}
Parameters = dict[str, bool | int | float | str]
"""Those of the protocol, which servers may ignore."""


class Problem(BaseModel):
    """Why a request was refused."""

    error: str


class _Strict(BaseModel):
    """What a client sends: a name or type that is not expected is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Images(_Strict):
    """Image files in base64, `data:` URLs too; or the URLs of images, if this server fetches them."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["images"]}, {"required": ["urls"]}],
            "examples": [{"images": [_PIXEL]}],
        }
    )

    images: list[Base64] = Field(default_factory=list, min_length=1, max_length=MOST_IMAGES)
    urls: list[Url] = Field(default_factory=list, min_length=1, max_length=MOST_IMAGES)

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if bool(self.images) == bool(self.urls):
            raise PydanticCustomError("one", "Give either images or urls")
        return self


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


class ImageTensor(_Strict):
    """Image files in base64, `[n]`."""

    name: Literal["images"]
    datatype: Literal["BYTES"]
    shape: list[int]
    data: list[Base64] = Field(min_length=1, max_length=MOST_IMAGES)
    parameters: Parameters = {}


class Output(_Strict):
    """A tensor that is asked for."""

    name: str
    parameters: Parameters = {}


class InferRequest(_Strict):
    """A request of the protocol with one tensor of images; without outputs, all are returned."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": [_TENSOR], "outputs": [{"name": "label"}]}]})

    id: str | None = None
    inputs: list[ImageTensor] = Field(min_length=1, max_length=1)
    outputs: list[Output] = []
    parameters: Parameters = {}


class Tensor(BaseModel):
    """A tensor that is returned, row by row."""

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    data: list[float | str]


class Inferred(BaseModel):
    """The tensors of an answer."""

    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[Tensor]


class Kind(BaseModel):
    """Name, type and shape of a tensor; -1 is any number."""

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]


class Described(BaseModel):
    """A model: the versions that are served, the newest one first, and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Kind]
    outputs: list[Kind]
    parameters: dict[str, list[str] | list[int]]


class Ready(BaseModel):
    """A model that can answer."""

    name: str
    ready: bool


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
