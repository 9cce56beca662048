"""An exported page as its user opens it: from a file, without a network, with a photo that is dropped."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tests.browser.runtime import Browser
from tests.browser.test_page import DROP, HAS_MAP, quoted, wait_for
from tests.browser.test_pixels import encoded, picture

from vitreous.use.export.targets import TARGETS
from vitreous.use.predict.predictor import Predictor

pytestmark = pytest.mark.browser


def test_page_classifies_a_photo_like_the_model_with_its_weights(
    browser: Browser, predictor_of: Callable[..., Predictor], tmp_path: Path
) -> None:
    predictor, page, photo = predictor_of(), tmp_path / "my model ü.html", picture(37, 51)
    answer = TARGETS["html"].write(predictor, page, {"name": "my model ü"})
    browser.open(page)
    browser.run(f"{DROP}({quoted(encoded(Image.fromarray(photo), 'PNG'))})")
    wait_for(browser, HAS_MAP)
    cells = "[...item.querySelectorAll('bdi, span')].map((cell) => cell.textContent)"
    shown = browser.run(f"[...document.querySelectorAll('.try-it li')].map((item) => {cells})")
    best = sorted(zip(answer(photo[None])[0][0].tolist(), predictor.classes, strict=True), reverse=True)
    assert shown == [[name, f"{100 * p:.1f}%"] for p, name in best]
    assert browser.run("document.title") == "my model ü"
    assert browser.problems == []
