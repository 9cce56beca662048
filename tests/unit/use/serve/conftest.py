"""A service of the tiny run, in this process, and a client that asks it."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.use.run import Run


@pytest.fixture(scope="module")
def models(run: Run) -> Any:
    """The tiny run, loaded for serving."""
    pytest.importorskip("fastapi")
    from vitreous.use.serve.models import Models, named

    return Models(named([run.path]))


@pytest.fixture
def client_of() -> Iterator[Callable[..., Any]]:
    """Make a client of a service; arguments are the models, their limits, the API keys and the names of the server."""
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from vitreous.use.serve.app import Service, create_app
    from vitreous.use.serve.guard import Limits

    with ExitStack() as stack:

        def make(
            models: Any, limits: Any = None, keys: tuple[str, ...] = (), fetcher: Any = None, hosts: Any = None
        ) -> Any:
            limits = limits or Limits()
            service = Service(models, limits, needs_key=bool(keys), fetcher=fetcher)
            stack.callback(service.close)
            client = TestClient(create_app(service, limits, keys, hosts), raise_server_exceptions=False)
            client.service = service
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(client_of: Callable[..., Any], models: Any) -> Any:
    """A client of the tiny run."""
    return client_of(models)


def encoded(seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (9, 14)) -> bytes:
    """Return a random image file of this height and width."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five image files of different formats and sizes."""
    folder = tmp_path_factory.mktemp("images")
    files = []
    for number, kind in enumerate(("PNG", "JPEG", "WEBP", "BMP", "GIF")):
        files.append(folder / f"photo ü {number}.{kind.lower()}")
        files[-1].write_bytes(encoded(number, kind, (40 + number, 30 + 7 * number)))
    return files
