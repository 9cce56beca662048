"""A page with ONNX Runtime, opened from a file: its answers and heat maps are those of the model in Python."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.browser.runtime import Browser
from tests.browser.test_page import DROP, HAS_MAP, IS_CLASSIFIED, quoted, status, wait_for
from tests.browser.test_pixels import encoded, picture
from tests.node_packages import node_package
from tests.unit.use.export.test_unfamiliar import familiar_predictor

from vitreous.use.export.page.runtime import VERSION, read_runtime, runtime_page
from vitreous.use.export.proof import python_answer
from vitreous.use.export.targets import write_onnx
from vitreous.use.predict.predictor import Predictor

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE_S = 300
"""ONNX Runtime has 14 MB to compile."""
MAP = """
const model = await Engine.open(JSON.parse(document.querySelector(".try-it script").textContent));
const falls = await model.explain(Uint8Array.from(data), () => true, () => {});
[model.grid, falls]
"""


@pytest.fixture(scope="module")
def made() -> Predictor:
    return familiar_predictor("mahalanobis")


@pytest.fixture(scope="module")
def page(made: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the model."""
    pytest.importorskip("onnxscript", reason="PyTorch's exporter to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="runs ONNX files")
    folder = tmp_path_factory.mktemp("page")
    write_onnx(made, folder / "model.onnx", {"name": "model"})
    runtime = read_runtime(node_package("onnxruntime-web", VERSION))
    (folder / "ü.html").write_bytes(runtime_page(made, "my <model>", (folder / "model.onnx").read_bytes(), runtime))
    return folder / "ü.html"


def test_photo_gets_the_answer_of_python_without_a_network(made: Predictor, page: Path, browser: Browser) -> None:
    photo = picture(37, 51)
    browser.open(page)
    browser.run(f"{DROP}({quoted(encoded(Image.fromarray(photo), 'PNG'))})")
    wait_for(browser, IS_CLASSIFIED, PATIENCE_S)
    (expected,) = made.predict([photo])
    assert status(browser).startswith(f"Predicted: {expected.label} ({100 * expected.probability:.1f}%). Computed in ")
    said = browser.run("document.querySelector('[data-part=familiarity]').textContent")
    assert said.startswith(
        f"Less like the training images than {100 * (expected.unfamiliar or 0):.1f}% of the validation"
    )
    browser.run("(() => { const e = document.querySelector('[data-part=explain]'); if (!e.hidden) e.click(); })()")
    wait_for(browser, HAS_MAP.replace("logit", "probability"), PATIENCE_S)  # a slow machine asks first
    assert browser.run("document.title") == "my <model>"
    assert browser.problems == []
    assert "wasm-unsafe-eval" in page.read_text("utf-8").partition("<title>")[0]


def test_map_shows_the_probability_that_a_region_contributes(made: Predictor, page: Path, browser: Browser) -> None:
    photo = picture(8, 12)
    browser.open(page)
    grid, falls = browser.compute(MAP, photo.flatten().tolist())
    assert grid == [8, 8]
    columns = [round(place * 12 / 8 + 1e-9) for place in range(9)]
    hidden = np.round(255 * np.array(made.preprocess.mean))
    answer = python_answer(made)
    expected = []
    for row in range(8):
        for left, right in itertools.pairwise(columns):
            changed = photo.copy()
            changed[row, left:right] = hidden
            expected.append((answer(photo[None])[0] - answer(changed[None])[0])[0])
    np.testing.assert_allclose(falls, expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


def test_browser_that_cannot_run_it_says_so(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.run("delete globalThis.DecompressionStream")
    browser.run(f"{DROP}({quoted(encoded(Image.fromarray(picture(8, 12)), 'PNG'))})")
    wait_for(browser, f"{json.dumps('use a newer one')} && document.body.innerText.includes('use a newer one')")
    assert status(browser).startswith("The model does not run in this browser (DecompressionStream is not defined)")
