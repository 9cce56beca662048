"""Models -> the application: a page, `/predict`, `/explain`, the Open Inference Protocol, `/metrics`."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from vitreous.data.workers import num_threads
from vitreous.errors import DataError, VitreousError, nearest
from vitreous.printable import printable
from vitreous.use.predict.inputs import unreadable_text
from vitreous.use.predict.predictor import BATCH_SIZE, Prediction
from vitreous.use.serve import protocol
from vitreous.use.serve.batches import Batcher
from vitreous.use.serve.bodies import Content, decoded, images_of, invalid, numbered
from vitreous.use.serve.guard import Guard, Limits, busy, refusal
from vitreous.use.serve.metrics import Metrics
from vitreous.use.serve.models import Models, ServedModel, heat_map
from vitreous.use.serve.page import page_html
from vitreous.version import __version__

ModelName = Annotated[str | None, Query(description="Name of a model; the first one by default.")]
ClassName = Annotated[str | None, Query(description="Class to explain; the predicted one by default.")]

_ABOUT: Mapping[str, Mapping[str, Any]] = {
    "/v2": {"name": "vitreous", "version": __version__, "extensions": []},
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
}
_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["images"], "properties": {"images": {"type": "array", "items": _FILE}}}
_KINDS = {"image/*": _FILE, "multipart/form-data": _FORM, "application/json": protocol.Images.model_json_schema()}
_BODY = {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in _KINDS.items()}}}
_VERSION = {"parameters": [{"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}]}
_REFUSED: dict[int | str, Any] = {n: {"model": protocol.Problem} for n in (400, 401, 403, 404, 413, 422, 503)}
_PREDICTIONS = {**_REFUSED, 200: {"model": protocol.Predictions}}
_PICTURE = {**_REFUSED, 200: {"content": {"image/png": {"schema": _FILE}}}}


class Service:
    """The routes and what they share. The first model answers requests that name none."""

    def __init__(self, models: Models, limits: Limits, *, needs_key: bool = False) -> None:
        self.metrics = Metrics()
        self._models, self._limits, self._needs_key = models.by_name, limits, needs_key
        self._batcher = Batcher(BATCH_SIZE)
        self._pool = ThreadPoolExecutor(num_threads(), thread_name_prefix="vitreous-decode")
        self._num_waiting = 0

    def close(self) -> None:
        """Finish what is being computed, and end all threads."""
        self._batcher.close()
        self._pool.shutdown()

    async def predict(self, request: Request, model: ModelName = None) -> Response:
        """Classify images: the body is an image file, a form with several, or JSON with files in base64."""
        _check_names(request, "model")
        served = self._find(model)
        predictions = await self._classify(request, served, await images_of(request))
        errors = [prediction.error for prediction in predictions if prediction.error]
        if len(errors) == len(predictions):
            raise HTTPException(
                422, errors[0] if len(errors) == 1 else unreadable_text(errors, len(errors), "classified")
            )
        found = [prediction.as_dict(served.predictor.classes) for prediction in predictions]
        return _json({"model": served.name, "version": served.version, "predictions": found})

    async def explain(self, request: Request, model: ModelName = None, target: ClassName = None) -> Response:
        """Show which parts of an image raise the score of a class: the photo in gray, its relevance in color."""
        _check_names(request, "model", "target")
        served, images = self._find(model), await images_of(request)
        if len(images) != 1:
            raise HTTPException(400, f"images={len(images)}: one at a time is explained; send one image")
        with self._room(request, served, 1):
            content = await self._in_pool(decoded, *images[0])
            compute = partial(served.explain, target=target)
            (explanation,) = await asyncio.wrap_future(self._batcher.submit(compute, [content]))
            png, finding = await self._in_pool(heat_map, explanation)
        return Response(png, media_type="image/png", headers={"X-Finding": finding})

    async def infer(self, request: Request, model: str, body: protocol.InferRequest) -> Response:
        """Classify a tensor of images by the Open Inference Protocol."""
        served, tensor = self._find(model, request), body.inputs[0]
        count = len(tensor.data)
        if tensor.shape[:1] != [count] or prod(tensor.shape) != count:
            raise HTTPException(400, f"inputs.0.shape={tensor.shape}: is not that of the data; use [{count}]")
        predictions = await self._classify(request, served, numbered(tensor.data))
        errors = [prediction.error for prediction in predictions if prediction.error]
        if errors:
            raise HTTPException(422, unreadable_text(errors, len(predictions), "classified"))
        tensors = protocol.tensors(body, served.predictor, predictions)
        named = {"id": body.id} if body.id is not None else {}
        return _json({**named, "model_name": served.name, "model_version": served.version, "outputs": tensors})

    async def model(self, request: Request, model: str) -> Response:
        """Describe a model."""
        served = self._find(model, request)
        preprocess, classes = served.predictor.preprocess, served.predictor.classes
        about = {"name": served.name, "versions": [served.version], "platform": "vitreous"}
        parameters = {"classes": classes, "img_size": preprocess.img_size}
        return _json({**about, **protocol.describe(served.predictor), "parameters": parameters})

    async def model_ready(self, request: Request, model: str) -> Response:
        """Say that a model can answer."""
        return _json({"name": self._find(model, request).name, "ready": True})

    async def page(self) -> Response:
        """Return the page for people."""
        return HTMLResponse(page_html(self._models, needs_key=self._needs_key))

    async def prometheus(self) -> Response:
        """Return the counts for Prometheus."""
        now = Metrics()
        now.add("vitreous_batches_total", {}, self._batcher.num_batches)
        now.add("vitreous_batch_images_total", {}, self._batcher.num_items)
        now.add("vitreous_waiting_images", {}, self._num_waiting)
        for name, model in self._models.items():
            now.add("vitreous_model_info", {"model": name, "version": model.version})
        return PlainTextResponse(self.metrics.text(now), media_type="text/plain; version=0.0.4")

    async def _classify(
        self, request: Request, served: ServedModel, images: Sequence[tuple[str, Content]]
    ) -> list[Prediction]:
        with self._room(request, served, len(images)):
            read = await asyncio.gather(*(self._in_pool(served.read, *image) for image in images))
            named = [(name, pixels) for (name, _), pixels in zip(images, read, strict=True)]
            predictions = await asyncio.wrap_future(self._batcher.submit(served.classify, named))
        num_unreadable = sum(bool(prediction.error) for prediction in predictions)
        self.metrics.add("vitreous_unreadable_images_total", {"model": served.name}, num_unreadable)
        request.scope["noted"]["unreadable"] = num_unreadable
        return predictions

    def _find(self, name: str | None, request: Request | None = None) -> ServedModel:
        """Return a model of the version in the address, if any. Raises HTTPException 404 if there is none."""
        served = self._models.get(next(iter(self._models)) if name is None else name)
        if served is None:
            raise HTTPException(404, f"model={printable(str(name))}: no such model; {nearest(str(name), self._models)}")
        version = request.path_params.get("version", served.version) if request else served.version
        if version != served.version:
            raise HTTPException(404, f"version={printable(version)}: is not served; the version is {served.version}")
        return served

    @contextmanager
    def _room(self, request: Request, served: ServedModel, count: int) -> Iterator[None]:
        """Count images as waiting. Raises HTTPException 503 if there are too many; one request is always accepted."""
        request.scope["noted"].update(model=served.name, version=served.version, images=count)
        self.metrics.add("vitreous_images_total", {"model": served.name}, count)
        if self._num_waiting and self._num_waiting + count > self._limits.max_waiting:
            raise busy(f"{self._num_waiting} of at most {self._limits.max_waiting} images are waiting")
        self._num_waiting += count
        try:
            yield
        finally:
            self._num_waiting -= count

    async def _in_pool(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def create_app(service: Service, limits: Limits, keys: Sequence[str] = ()) -> ASGIApp:
    """Return the application; requests need one of the keys, unless there are none."""
    kinds = (HTTPException, RequestValidationError, VitreousError, ClientDisconnect, Exception)
    handlers: dict[Any, Any] = dict.fromkeys(kinds, _on_error)
    app = FastAPI(title="vitreous", version=__version__, docs_url=None, redoc_url=None, exception_handlers=handlers)
    app.add_api_route("/", service.page, include_in_schema=False)
    app.add_api_route("/metrics", service.prometheus, response_class=PlainTextResponse)
    posted: dict[str, Any] = {"methods": ["POST"], "openapi_extra": _BODY}
    app.add_api_route("/predict", service.predict, responses=_PREDICTIONS, **posted)
    app.add_api_route("/explain", service.explain, responses=_PICTURE, response_class=Response, **posted)
    for path, about in _ABOUT.items():
        app.add_api_route(path, partial(_json, about), summary="About the server")
    for version, extra in (("", None), ("/versions/{version}", _VERSION)):
        for path, route, method in (
            ("", service.model, "GET"),
            ("/ready", service.model_ready, "GET"),
            ("/infer", service.infer, "POST"),
        ):
            app.add_api_route(
                "/v2/models/{model}" + version + path, route, methods=[method], responses=_REFUSED, openapi_extra=extra
            )
    return Guard(app, limits, keys, service.metrics)


def _check_names(request: Request, *known: str) -> None:
    """Raise HTTPException 400 for a parameter that does not exist, which would have no effect."""
    for name in request.query_params:
        if name not in known:
            raise HTTPException(400, f"{printable(name)}: no such parameter; {nearest(name, known)}")


def _json(content: Mapping[str, Any]) -> Response:
    """Return JSON in ASCII, because names of classes may have characters that UTF-8 cannot encode."""
    return Response(json.dumps(content), media_type="application/json")


async def _on_error(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return refusal(error)
    if isinstance(error, RequestValidationError):
        return refusal(HTTPException(400, invalid(error.errors())))
    if isinstance(error, VitreousError):
        return refusal(HTTPException(422 if isinstance(error, DataError) else 400, str(error)))
    if isinstance(error, ClientDisconnect):
        return refusal(HTTPException(499, "the client has closed the connection"))
    return refusal(HTTPException(500, "internal error; the log of the server has the traceback"))
