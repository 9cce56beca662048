"""Name of another library -> its module; the test is skipped where the library is not installed."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def peer(benchmark: Callable[[str], Any]) -> Callable[[str], Any]:
    """Import a library that `make bench-env` installs; some need torchvision, which needs operators that it lacks."""

    def found(name: str) -> Any:
        if find_spec("torchvision"):
            benchmark("parity").define_missing_operators()
        return pytest.importorskip(name)

    return found


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Import a script of `benchmarks/`, which others of that name do not see."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield import_module
    for name in [name for name, module in sys.modules.items() if _file_of(module).parent == BENCHMARKS]:
        del sys.modules[name]


def _file_of(module: Any) -> Path:
    return Path(getattr(module, "__file__", None) or "/")
