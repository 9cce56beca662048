"""A hub of weights on the loopback interface, with empty caches."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hub_server import Hub, serving


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, which huggingface_hub asks in this process and in child processes."""
    from huggingface_hub import constants

    with serving({}) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("http://127.0.0.1:9", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name, value in (
            ("HF_ENDPOINT", served.url),
            ("HF_HOME", tmp_path / "hf"),
            ("VITREOUS_CACHE", tmp_path / "v"),
            ("HF_HUB_DISABLE_XET", "1"),
        ):
            monkeypatch.setenv(name, str(value))
        yield served
