"""Name of another library -> its module, or the test is skipped where it is not installed."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def peer(script: Callable[[str], Any]) -> Callable[[str], Any]:
    """Import a library that `make bench-env` installs; some import torchvision, which needs operators that it lacks."""

    def found(name: str) -> Any:
        if find_spec("torchvision"):
            script("parity").define_missing_operators()
        return pytest.importorskip(name)

    return found


@pytest.fixture
def script() -> Callable[[str], Any]:
    """Import a script of `benchmarks/`."""

    def found(name: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(BENCHMARKS))
            return import_module(name)

    return found
