"""A browser that all tests of this folder share, and small models to pack."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.browser.runtime import CHROMIUM, Browser
from tests.unit.use.explain import models

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model.vit import VisionTransformer
from vitreous.use.predict.predictor import Predictor

MEAN, STD = (0.45, 0.5, 0.55), (0.3, 0.25, 0.2)


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


def predictor_for(model: VisionTransformer, thresholds: tuple[float, ...] | None = None) -> Predictor:
    """Combine a model with the preprocessing of its images."""
    config = model.config
    preprocess = Preprocess(
        config.img_size, config.in_chans, "crop", MEAN[: config.in_chans], STD[: config.in_chans], value_range=()
    )
    classes = tuple(f"class {number}" for number in range(config.num_classes))
    return Predictor(model.eval(), preprocess, classes, temperature=1.7, metadata={}, thresholds=thresholds)
