"""Body of a request -> image files with their names: raw bytes, a form with files, JSON with base64 or URLs."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vitreous.errors import DecodeError
from vitreous.use.serve.fetch import Fetcher
from vitreous.use.serve.protocol import MOST_IMAGES, Images
from vitreous.wording import printable

Content = bytes | str | DecodeError
"""An image file as it is, or in base64; or why it could not be fetched."""


async def images_of(request: Request, fetcher: Fetcher | None) -> list[tuple[str, Content]]:
    """Return the name and content of each image; a body of any other content type is one image file.

    Raises:
        HTTPException: 400 for a body that is not what its content type says, or has too many images; 403 for URLs that
            may not be fetched.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _files(request)
    body = await request.body()
    if kind != "application/json":
        return numbered([body])
    try:
        given = Images.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(400, invalid(error.errors())) from error
    if not given.urls:
        return numbered(given.images)
    if fetcher is None:
        way_out = "send the files, or start it with --allow-urls HOST"
        raise HTTPException(403, f"urls={printable(given.urls[0])}: this server fetches no images; {way_out}")
    for url in given.urls:
        fetcher.check(url)
    files = await asyncio.gather(*(fetcher.fetch(url, request.scope["take"]) for url in given.urls))
    return list(zip(map(printable, given.urls), files, strict=True))


def numbered(contents: Sequence[Content]) -> list[tuple[str, Content]]:
    """Name images as `vitreous predict` names those without a file."""
    return [(f"image {number}", content) for number, content in enumerate(contents)]


def decoded(image: tuple[str, Content]) -> bytes:
    """Return an image file. Raises DecodeError if it could not be fetched, or if text is not base64."""
    name, content = image
    if isinstance(content, DecodeError):
        raise DecodeError(str(content))
    if isinstance(content, bytes):
        return content
    try:
        return base64.b64decode(content.partition(",")[2] if content.startswith("data:") else content, validate=True)
    except ValueError as error:
        raise DecodeError(f"{name}: is not base64") from error


def invalid(errors: Sequence[Any]) -> str:
    """Return what pydantic found wrong with a request first."""
    where = ".".join(str(part) for part in errors[0]["loc"] if part != "body") or "body"
    return f"{printable(where)}: {printable(errors[0]['msg'])}; see /openapi.json"


async def _files(request: Request) -> list[tuple[str, Content]]:
    """Return the files of a form. They stay in memory: nothing that a client sends is written to disk."""
    parser = MultiPartParser(request.headers, request.stream(), max_files=MOST_IMAGES)
    parser.spool_max_size = 1 << 40
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"form: {error.message}") from error
    images: list[tuple[str, Content]] = []
    try:
        for field, value in form.multi_items():
            if isinstance(value, str):
                raise HTTPException(400, f"{printable(field)}: is not a file; send each image as a file of the form")
            images.append((printable(value.filename or f"image {len(images)}"), await value.read()))
    finally:
        await form.close()
    if not images:
        raise HTTPException(400, "form: has no file; send each image as a file, as `curl --form image=@photo.jpg` does")
    return images
