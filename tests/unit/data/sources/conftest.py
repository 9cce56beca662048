"""What tests of sources need around them: no network, and a cache of their own."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest


@pytest.fixture
def data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Disconnect the network, use an empty cache, and set VITREOUS_DATA to an empty folder, which is returned."""

    def refuse(address: str, timeout: float) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VITREOUS_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"
