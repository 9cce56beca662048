"""A browser that all tests of this folder share, and small models to pack."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.browser.runtime import CHROMIUM, Browser
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for

from vitreous.use.predict.predictor import Predictor


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless browser; skips the test if there is none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, e.g. Debian's package chromium")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def predictor_of() -> Callable[..., Predictor]:
    """Make a predictor of a kind of model with random weights; other arguments are fields of ModelConfig."""

    def make(kind: str = "token", *, thresholds: tuple[float, ...] | None = None, **changes: Any) -> Predictor:
        return predictor_for(models.make_model(kind, **changes), thresholds)

    return make
