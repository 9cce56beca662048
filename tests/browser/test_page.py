"""The page as a reader uses it: from a file, under a strict policy, with photos that are chosen or dropped."""

import base64
import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.browser.runtime import Browser
from tests.browser.test_pixels import encoded, picture

from vitreous.training.fit.familiarity import Familiarity
from vitreous.use.export.page.document import app_html, script_text, style_text
from vitreous.use.export.page.pack import PackedModel, pack
from vitreous.use.predict.predictor import Predictor

pytestmark = pytest.mark.browser
HOSTILE = ("</script><script>window.hit = 1</script>", '<img src=x onerror="window.hit = 1">', "Ä & b", "]]>", "-->")
DROP = """
(async (text) => {
  const file = new File([Pixels.bytesOf(text)], "photo.png"), moved = new DataTransfer();
  moved.items.add(file);
  document.querySelector(".try-it").dispatchEvent(new DragEvent("drop", { dataTransfer: moved, cancelable: true }));
})
"""
CHOOSE = """
(async (text) => {
  const input = document.querySelector("input"), chosen = new DataTransfer();
  chosen.items.add(new File([Pixels.bytesOf(text)], "photo.png"));
  input.files = chosen.files;
  input.dispatchEvent(new Event("change"));
})
"""


def quoted(content: bytes) -> str:
    return json.dumps(base64.b64encode(content).decode())


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def open_page(browser: Browser, folder: Path, packed: PackedModel) -> None:
    """Write a page with the model, whose policy allows only its script and its style, and open it."""
    script, style = script_text(), style_text()
    policy = f"default-src 'none'; script-src {hash_of(script)}; style-src {hash_of(style)}"
    page = folder / "report ü.html"
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Try it</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{style}</style>'
        f"{app_html(packed.text)}<script>{script}</script></html>",
        encoding="utf-8",
    )
    browser.open(page)


def wait_for(browser: Browser, condition: str, seconds: float = 30) -> None:
    """Wait until a condition of the page is true."""
    end = time.monotonic() + seconds
    while not browser.run(condition):
        assert time.monotonic() < end, (condition, browser.run("document.body.innerText"), browser.problems)
        time.sleep(0.05)


def status(browser: Browser) -> str:
    return browser.run("document.querySelector('[role=status]').textContent")


IS_CLASSIFIED = "!document.querySelector('[data-part=result]').hidden"
HAS_MAP = "document.querySelector('figcaption').textContent.includes('raise the logit')"


@pytest.fixture
def hostile(predictor_of: Callable[..., Predictor]) -> Predictor:
    """A model whose class names try to leave their place."""
    return replace(predictor_of(), classes=HOSTILE)


@pytest.mark.parametrize("action", [DROP, CHOOSE], ids=["dropped", "chosen"])
def test_photo_gets_the_prediction_of_python(action: str, hostile: Predictor, browser: Browser, tmp_path: Path) -> None:
    packed = pack(hostile)
    photo = picture(37, 51)
    open_page(browser, tmp_path, packed)
    browser.run(f"{action}({quoted(encoded(Image.fromarray(photo), 'PNG'))})")
    wait_for(browser, IS_CLASSIFIED)
    (expected,) = replace(hostile, model=packed.rounded).predict([photo])
    assert status(browser).startswith(f"Predicted: {expected.label} ({100 * expected.probability:.1f}%). Computed in ")
    cells = "[...item.querySelectorAll('bdi, span')].map((cell) => cell.textContent)"
    shown = browser.run(f"[...document.querySelectorAll('li')].map((item) => {cells})")
    best = sorted(zip(expected.probabilities, HOSTILE, strict=True), reverse=True)
    assert shown == [[name, f"{100 * p:.1f}%"] for p, name in best]
    wait_for(browser, HAS_MAP)
    assert browser.run("window.hit === undefined")
    assert browser.problems == []


def test_map_is_shown_for_the_class_that_is_chosen(hostile: Predictor, browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path, pack(hostile))
    browser.run(f"{DROP}({quoted(encoded(Image.fromarray(picture(8, 12)), 'PNG'))})")
    wait_for(browser, HAS_MAP)
    before = browser.run("document.querySelector('[data-part=picture]').toDataURL()")
    browser.run("document.querySelectorAll('li button')[2].click()")
    pressed = "[...document.querySelectorAll('li button')].map((button) => button.getAttribute('aria-pressed'))"
    assert browser.run(pressed) == ["false", "false", "true", "false", "false"]
    assert browser.run("document.querySelector('[data-part=picture]').toDataURL()") != before


def test_picture_is_the_image_as_the_model_gets_it(
    predictor_of: Callable[..., Predictor], browser: Browser, tmp_path: Path
) -> None:
    photo = picture(4, 4)
    open_page(browser, tmp_path, pack(predictor_of(img_size=(4, 4), pool="mean")))  # one patch, so there is no map
    browser.run(f"{DROP}({quoted(encoded(Image.fromarray(photo), 'PNG'))})")
    wait_for(browser, IS_CLASSIFIED)
    text = browser.run("document.querySelector('[data-part=picture]').toDataURL().split(',')[1]")
    drawn = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
    assert drawn.size == (320, 320)
    np.testing.assert_array_equal(np.asarray(drawn), photo.repeat(80, axis=0).repeat(80, axis=1))
    assert browser.run("document.querySelector('[data-part=explain]').hidden")


def test_unreadable_file_is_refused_in_words(hostile: Predictor, browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path, pack(hostile))
    browser.run(f"{DROP}({quoted(b'no image')})")
    wait_for(browser, "document.querySelector('[role=status]').textContent.startsWith('The browser cannot read')")
    assert browser.run("document.querySelector('[data-part=result]').hidden")
    assert browser.problems == []


def test_later_photo_replaces_an_earlier_one(hostile: Predictor, browser: Browser, tmp_path: Path) -> None:
    packed, photos = pack(hostile), [picture(64, 96, 1), picture(8, 12, 2)]
    open_page(browser, tmp_path, packed)
    for photo in photos:
        browser.run(f"{DROP}({quoted(encoded(Image.fromarray(photo), 'PNG'))})")
    wait_for(browser, HAS_MAP)
    expected = replace(hostile, model=packed.rounded).predict(photos)[1]
    assert status(browser).startswith(f"Predicted: {expected.label} ({100 * expected.probability:.1f}%)")


def test_example_is_classified_with_one_click(hostile: Predictor, browser: Browser, tmp_path: Path) -> None:
    photo = picture(8, 12)
    packed = pack(hostile, example=encoded(Image.fromarray(photo), "PNG"))
    open_page(browser, tmp_path, packed)
    browser.run("document.querySelector('[data-part=example]').click()")
    wait_for(browser, IS_CLASSIFIED)
    (expected,) = replace(hostile, model=packed.rounded).predict([photo])
    assert status(browser).startswith(f"Predicted: {expected.label} ({100 * expected.probability:.1f}%)")


def test_page_without_an_example_does_not_offer_one(hostile: Predictor, browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path, pack(hostile))
    assert browser.run("document.querySelector('[data-part=example]').hidden")


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_labels_are_those_above_their_thresholds(
    threshold: float, predictor_of: Callable[..., Predictor], browser: Browser, tmp_path: Path
) -> None:
    predictor = predictor_of(thresholds=(threshold,) * 5)
    packed = pack(predictor)
    open_page(browser, tmp_path, packed)
    photo = picture(8, 12)
    browser.run(f"{DROP}({quoted(encoded(Image.fromarray(photo), 'PNG'))})")
    wait_for(browser, IS_CLASSIFIED)
    (expected,) = replace(predictor, model=packed.rounded).predict([photo])
    assert len(expected.labels) == (5 if threshold == 0 else 0)
    named = ", ".join(f"{name} ({100 * expected.probabilities[int(name[-1])]:.1f}%)" for name in expected.labels)
    assert status(browser).startswith(f"Predicted: {named}." if named else "No label is probable enough")


@pytest.mark.parametrize(
    ("margin", "text"),
    [(-1.0, "than 95.2% of the validation images, so these probabilities may mean little."),
     (1.0, "than 50.0% of the validation images.")],
)  # fmt: skip
def test_page_says_how_unlike_the_training_images_a_photo_is(
    margin: float, text: str, hostile: Predictor, browser: Browser, tmp_path: Path
) -> None:
    photo, width = picture(8, 12), hostile.model.num_features
    logits = replace(hostile, model=pack(hostile).rounded).logits(hostile.preprocess.pixels(photo)[None])
    known = (-logits.logsumexp(dim=1) + margin).repeat(20)
    found = Familiarity(torch.zeros(1, width).half(), torch.zeros(1), is_multilabel=False, score="energy", known=known)
    vars(hostile)["familiarity"] = found
    open_page(browser, tmp_path, pack(hostile))
    browser.run(f"{DROP}({quoted(encoded(Image.fromarray(photo), 'PNG'))})")
    wait_for(browser, IS_CLASSIFIED)
    said = "document.querySelector('[data-part=familiarity]')"
    assert browser.run(f"{said}.textContent") == f"Less like the training images {text}"
    assert browser.run(f"{said}.checkVisibility()") is True
    assert browser.run(f"{said}.classList.contains('warning')") is (margin < 0)


def test_page_without_familiarity_says_nothing_of_it(hostile: Predictor, browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path, pack(hostile))
    browser.run(f"{DROP}({quoted(encoded(Image.fromarray(picture(8, 12)), 'PNG'))})")
    wait_for(browser, IS_CLASSIFIED)
    assert browser.run("document.querySelector('[data-part=familiarity]').checkVisibility()") is False
