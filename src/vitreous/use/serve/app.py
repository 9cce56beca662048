"""Models -> the application: a page, `/predict`, `/explain`, the Open Inference Protocol, `/metrics`."""

import asyncio
import json
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from vitreous.data.workers import num_threads
from vitreous.errors import DataError, UnknownNameError, VitreousError, nearest
from vitreous.use.predict.inputs import unreadable_text
from vitreous.use.predict.predictor import BATCH_SIZE, Prediction
from vitreous.use.serve import protocol
from vitreous.use.serve.batches import Batcher
from vitreous.use.serve.bodies import Content, decoded, images_of, invalid, numbered
from vitreous.use.serve.fetch import Fetcher
from vitreous.use.serve.guard import Guard, Limits, busy, refusal
from vitreous.use.serve.metrics import Metrics
from vitreous.use.serve.models import Models, ServedModel, heat_map
from vitreous.use.serve.page import page_html
from vitreous.version import __version__
from vitreous.wording import printable

_ABOUT: Mapping[str, Mapping[str, Any]] = {
    "/v2": {"name": "vitreous", "version": __version__, "extensions": []},
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
}
_FILE = {"type": "string", "format": "binary"}
_PARAMETERS = {
    "model": "Name of a model; the first one by default.",
    "version": "Version of the model; the newest one by default.",
    "target": "Class to explain; the predicted one by default.",
}
_QUERY = [
    {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
    for name, text in _PARAMETERS.items()
]
_VERSION = {"parameters": [{"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}]}
_REFUSED: dict[int | str, Any] = {n: {"model": protocol.Problem} for n in (400, 401, 403, 404, 413, 422, 503)}
_PREDICTIONS = {**_REFUSED, 200: {"model": protocol.Predictions}}
_FINDING = {"X-Finding": {"description": "Where the relevance lies.", "schema": {"type": "string"}}}
_TEXT = {401: _REFUSED[401], 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
_PICTURE = {**_REFUSED, 200: {"content": {"image/png": {"schema": _FILE}}, "headers": _FINDING}}


class Service:
    """The routes and what they share. The first model answers requests that name none."""

    def __init__(self, models: Models, limits: Limits, *, needs_key: bool, fetcher: Fetcher | None) -> None:
        self.metrics = Metrics()
        self._models, self._limits, self._needs_key, self._fetcher = models.versions, limits, needs_key, fetcher
        self._batcher = Batcher(BATCH_SIZE, num_threads())
        self._num_waiting = 0

    def close(self) -> None:
        """Finish what is being computed, and end all threads."""
        self._batcher.close()

    async def predict(self, request: Request) -> Response:
        """Classify images: the body is an image file, a form with several, or JSON with base64 or URLs."""
        served = self._find(*_parameters(request, "model", "version"))
        predictions = await self._classify(request, served, await images_of(request, self._fetcher))
        errors = [prediction.error for prediction in predictions if prediction.error]
        if len(errors) == len(predictions):
            raise HTTPException(
                422, errors[0] if len(errors) == 1 else unreadable_text(errors, len(errors), "classified")
            )
        found = [prediction.as_dict(served.predictor.classes) for prediction in predictions]
        return _json({"model": served.name, "version": served.version, "predictions": found})

    async def explain(self, request: Request) -> Response:
        """Show which parts of an image raise the score of a class: the photo in gray, its relevance in color."""
        model, version, target = _parameters(request, "model", "version", "target")
        served, images = self._find(model, version), await images_of(request, self._fetcher)
        if len(images) != 1:
            raise HTTPException(400, f"images={len(images)}: one at a time is explained; send one image")
        with self._room(request, served, 1):
            compute = partial(served.explain, target=target)
            (explanation,) = await self._batcher.submit(compute, images, decoded)
            png, finding = await asyncio.to_thread(heat_map, explanation)
        return Response(png, media_type="image/png", headers={"X-Finding": finding})

    async def infer(self, request: Request, model: str, body: protocol.InferRequest) -> Response:
        """Classify a tensor of images by the Open Inference Protocol."""
        served, tensor = self._find(model, request.path_params.get("version")), body.inputs[0]
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
        served = self._find(model, request.path_params.get("version"))
        versions = [each.version for each in self._models[model]]
        about = {"name": served.name, "versions": versions, "platform": "vitreous"}
        parameters = {"classes": served.predictor.classes, "img_size": served.predictor.preprocess.img_size}
        return _json({**about, **protocol.describe(served.predictor), "parameters": parameters})

    async def model_ready(self, request: Request, model: str) -> Response:
        """Say that a model can answer."""
        return _json({"name": self._find(model, request.path_params.get("version")).name, "ready": True})

    async def page(self) -> Response:
        """Return the page for people."""
        return HTMLResponse(page_html(self._models, needs_key=self._needs_key))

    async def prometheus(self) -> Response:
        """Return the counts for Prometheus."""
        now = Metrics()
        now.add("vitreous_batches_total", {}, self._batcher.num_batches)
        now.add("vitreous_batch_images_total", {}, self._batcher.num_items)
        now.add("vitreous_waiting_images", {}, self._num_waiting)
        for served in (each for versions in self._models.values() for each in versions):
            now.add("vitreous_model_info", {"model": served.name, "version": served.version})
        return PlainTextResponse(self.metrics.text(now), media_type="text/plain; version=0.0.4")

    async def _classify(
        self, request: Request, served: ServedModel, images: Sequence[tuple[str, Content]]
    ) -> list[Prediction]:
        with self._room(request, served, len(images)):
            predictions = await self._batcher.submit(served.classify, images, served.read)
        num_unreadable = sum(bool(prediction.error) for prediction in predictions)
        self.metrics.add("vitreous_unreadable_images_total", {"model": served.name}, num_unreadable)
        request.scope["noted"]["unreadable"] = num_unreadable
        return predictions

    def _find(self, name: str | None, version: str | None) -> ServedModel:
        """Return a version of a model; by default the newest one of the first model. HTTPException 404 without one."""
        versions = self._models.get(next(iter(self._models)) if name is None else name)
        if versions is None:
            raise HTTPException(404, f"model={printable(str(name))}: no such model; {nearest(str(name), self._models)}")
        known = {served.version: served for served in versions}
        if version is not None and version not in known:
            raise HTTPException(404, f"version={printable(version)}: is not served; {nearest(version, known)}")
        return versions[0] if version is None else known[version]

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


class _Direct(APIRoute):
    """A route that bypasses FastAPI's parsing: its function reads the request itself, which is faster."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function as it is."""
        return self.endpoint


def create_app(service: Service, limits: Limits, keys: Sequence[str], hosts: Collection[str] | None) -> ASGIApp:
    """Return the application in its `Guard`; requests need one of the keys, unless there are none."""
    kinds = (HTTPException, RequestValidationError, VitreousError, ClientDisconnect, Exception)
    handlers: dict[Any, Any] = dict.fromkeys(kinds, _on_error)
    app = FastAPI(title="vitreous", version=__version__, docs_url=None, redoc_url=None, exception_handlers=handlers)
    app.add_api_route("/", service.page, include_in_schema=False)
    for path, about in _ABOUT.items():
        app.add_api_route(path, partial(_json, about), summary="About the server")
    key = [Depends(HTTPBearer(scheme_name="key", auto_error=False))] if keys else []  # `Guard` checks it
    add: Any = partial(app.router.add_api_route, dependencies=key)
    add("/metrics", service.prometheus, response_class=Response, responses=_TEXT)
    posted: dict[str, Any] = {"methods": ["POST"], "route_class_override": _Direct}
    taken: dict[str, Any] = {"requestBody": _body(protocol.MOST_IMAGES), "parameters": _QUERY[:2]}
    add("/predict", service.predict, responses=_PREDICTIONS, openapi_extra=taken, **posted)
    taken = {"requestBody": _body(1), "parameters": _QUERY}
    add("/explain", service.explain, responses=_PICTURE, response_class=Response, openapi_extra=taken, **posted)
    for version, described in (("", None), ("/versions/{version}", _VERSION)):
        for path, route, method, answer in (
            ("", service.model, "GET", protocol.Described),
            ("/ready", service.model_ready, "GET", protocol.Ready),
            ("/infer", service.infer, "POST", protocol.Inferred),
        ):
            where, responses = f"/v2/models/{{model}}{version}{path}", {**_REFUSED, 200: {"model": answer}}
            add(where, route, methods=[method], responses=responses, openapi_extra=described)
    return Guard(app, limits, keys, service.metrics, hosts)


def _body(most: int) -> dict[str, Any]:
    """Describe a body with at most this number of images."""
    files = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": most}
    form = {"type": "object", "required": ["images"], "properties": {"images": files}, "additionalProperties": False}
    given = protocol.Images.model_json_schema()
    for listed in given["properties"].values():
        listed["maxItems"] = most
    kinds = {"image/*": _FILE, "multipart/form-data": form, "application/json": given}
    return {"required": True, "content": {kind: {"schema": schema} for kind, schema in kinds.items()}}


def _parameters(request: Request, *known: str) -> list[str | None]:
    """Return the values of parameters. Raises HTTPException 400 for what would have no effect."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise HTTPException(400, f"{printable(name)}: no such parameter; {nearest(name, known)}")
        if name in found:
            raise HTTPException(400, f"{name}={printable(value)}: is the second one; give one {name}")
        found[name] = value
    return [found.get(name) for name in known]


def _json(content: Mapping[str, Any]) -> Response:
    """Return JSON in ASCII, because names of classes may have characters that UTF-8 cannot encode."""
    return Response(json.dumps(content), media_type="application/json")


async def _on_error(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return refusal(error)
    if isinstance(error, RequestValidationError):
        return refusal(HTTPException(400, invalid(error.errors())))
    if isinstance(error, VitreousError):
        status = 422 if isinstance(error, DataError) else 404 if isinstance(error, UnknownNameError) else 400
        return refusal(HTTPException(status, str(error)))
    if isinstance(error, ClientDisconnect):
        return refusal(HTTPException(499, "the client has closed the connection"))
    return refusal(HTTPException(500, "internal error; the log of the server has the traceback"))
