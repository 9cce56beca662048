"""The page of `vitreous serve` as people use it: photos are dropped, pasted or chosen, and each model answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.runtime import Browser
from tests.browser.test_page import quoted, wait_for
from tests.unit.use.conftest import KEYS
from tests.unit.use.serve.conftest import encoded
from tests.unit.use.serve.process import Server, serving

from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.use.run import Run

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HOSTILE = '<img src=x onerror="window.hit = 1">'
FILES = """
  const moved = new DataTransfer();
  texts.forEach((text, n) => {
    moved.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt())], `p${n}.png`));
  });
"""
ACTIONS = {
    "dropped": 'document.dispatchEvent(new DragEvent("drop", { dataTransfer: moved, cancelable: true }))',
    "pasted": 'document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: moved }))',
    "chosen": """{
      const input = document.querySelector("#choose input");
      input.files = moved.files;
      input.dispatchEvent(new Event("change"));
    }""",
}
BUTTONS = "[...document.querySelectorAll('#photos section ol button')]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two tiny runs; a class has a hostile name."""
    from tests.pictures import write_pictures

    pytest.importorskip("fastapi")
    folder = tmp_path_factory.mktemp("serve")
    classes = {HOSTILE.replace("/", ""): ((200, 60, 50), 29), "two words": ((70, 180, 60), 23)}
    photos = write_pictures(folder / "photos", classes, seed=5, name="{}.png", noise=20, tint=60)
    requests = [TrainRequest(data=str(photos), values=dict(KEYS), out=folder / name) for name in ("first", "second")]
    return [Run(run_training(request).path) for request in requests]


@pytest.fixture(scope="module")
def server(runs: list[Run]) -> Iterator[Server]:
    with serving(*(run.path for run in runs)) as server:
        yield server


def give(browser: Browser, action: str, *photos: bytes) -> None:
    """Give photos to the page in one of the ways."""
    texts = ", ".join(quoted(photo) for photo in photos)
    browser.run(f"((texts) => {{ {FILES} {ACTIONS[action]} }})([{texts}])")


def wait_for_maps(browser: Browser, count: int) -> None:
    wait_for(browser, f"document.querySelectorAll('#photos section figure img').length === {count}")


@pytest.mark.parametrize("action", ACTIONS)
def test_each_model_answers_with_probabilities_and_a_heat_map(
    action: str, server: Server, runs: list[Run], browser: Browser
) -> None:
    photo = encoded(3, "PNG", (50, 70))
    browser.open(f"{server.url}/")
    give(browser, action, photo)
    wait_for_maps(browser, 2)
    shown: Any = browser.run(
        f"{BUTTONS}.map((b) => [b.querySelector('bdi').textContent, b.querySelector('span').textContent])"
    )
    expected = [run.predict(photo)[0] for run in runs]
    for found, prediction, run in zip((shown[:2], shown[2:]), expected, runs, strict=True):
        best = sorted(zip(prediction.probabilities, run.classes, strict=True), reverse=True)
        assert found == [[name, f"{100 * p:.1f}%"] for p, name in best]
    assert browser.run("[...document.querySelectorAll('#photos h2')].map((h) => h.textContent)") == ["first", "second"]
    assert browser.run("document.querySelector('[role=status]').textContent") == "1 done"
    assert browser.run("[...document.querySelectorAll('#photos img')].every((i) => i.naturalWidth > 0)")
    assert browser.run("window.hit === undefined")
    assert browser.problems == []


def test_page_asks_only_its_own_server(server: Server, browser: Browser) -> None:
    browser.open(f"{server.url}/")
    give(browser, "dropped", encoded())
    wait_for_maps(browser, 2)
    asked = browser.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(asked) >= 4
    assert [name for name in asked if not name.startswith((server.url, "blob:" + server.url))] == []
    refused = browser.run("fetch('http://127.0.0.1:9/').then(() => 'allowed', () => 'refused')")
    assert refused == "refused"


def test_map_of_the_chosen_class_is_shown(server: Server, browser: Browser) -> None:
    browser.open(f"{server.url}/")
    give(browser, "dropped", encoded())
    wait_for_maps(browser, 2)
    name = browser.run(f"{BUTTONS}[1].querySelector('bdi').textContent")
    browser.run(f"{BUTTONS}[1].click()")
    wait_for(browser, f"document.querySelector('#photos section figcaption')?.textContent.includes({json.dumps(name)})")
    assert browser.run(f"{BUTTONS}.slice(0, 2).map((b) => b.getAttribute('aria-pressed'))") == ["false", "true"]
    assert browser.run("document.querySelectorAll('#photos section')[0].querySelectorAll('figure').length") == 1


def test_latest_photo_comes_first_and_unreadable_ones_say_so(server: Server, browser: Browser) -> None:
    browser.open(f"{server.url}/")
    browser.run("document.querySelectorAll('#models input')[1].click()")
    give(browser, "dropped", encoded(1), b"no image")
    wait_for(browser, "document.querySelector('[role=status]').textContent === '2 done'")
    names = browser.run("[...document.querySelectorAll('#photos > li > figure figcaption')].map((c) => c.textContent)")
    assert names == ["p1.png", "p0.png"]
    assert "not an image that Pillow can read" in browser.run("document.querySelector('#photos section').innerText")
    assert browser.run("document.querySelectorAll('#photos section').length") == 2  # of the one model that is checked


def test_page_works_by_keyboard_and_on_a_narrow_screen(server: Server, browser: Browser) -> None:
    browser.open(f"{server.url}/")
    give(browser, "dropped", encoded())
    wait_for_maps(browser, 2)
    focusable = "[...document.querySelectorAll('input, button, a')].filter((e) => e.checkVisibility())"
    assert browser.run(f"{focusable}.every((e) => (e.focus(), document.activeElement === e))")
    assert browser.run("[...document.querySelectorAll('input')].every((e) => e.labels.length === 1)")
    browser._ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    try:
        assert browser.run("document.documentElement.scrollWidth") <= 360
    finally:
        browser._ask("Emulation.clearDeviceMetricsOverride")


def test_key_is_asked_for_and_sent(runs: list[Run], browser: Browser) -> None:
    with serving(runs[0].path, VITREOUS_API_KEY="a key") as server:
        browser.open(f"{server.url}/")
        assert browser.run("document.querySelector('#models').checkVisibility()") is False
        give(browser, "dropped", encoded())
        wait_for(browser, "document.querySelector('#photos section')?.innerText.includes('not a known API key')")
        browser.run("document.querySelector('#key input').value = 'a key'")
        give(browser, "dropped", encoded())
        wait_for_maps(browser, 1)


def test_server_that_has_stopped_is_named(runs: list[Run], browser: Browser, tmp_path: Path) -> None:
    with serving(runs[0].path) as server:
        browser.open(f"{server.url}/")
    give(browser, "dropped", encoded())
    wait_for(browser, "document.querySelector('#photos section')?.innerText.includes('The server does not answer.')")
