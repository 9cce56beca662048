"""The report in a browser: its script works, its policy refuses nothing that it needs, and everybody can read it."""

from pathlib import Path
from typing import Any

import pytest
from tests.browser.runtime import Browser

pytestmark = pytest.mark.browser

LOOKS = [("desktop", 1280, "light"), ("desktop", 1280, "dark"), ("phone", 360, "light"), ("phone", 360, "dark")]

CONTRAST = """
(() => {
  const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const under = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = channels(getComputedStyle(e).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, style = getComputedStyle(element);
    if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, style, #classes svg"))
      continue;
    const color = channels(element.closest("svg") ? style.fill : style.color), paper = under(element);
    const [high, low] = [light(color), light(paper)].sort((a, b) => b - a), ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) bad.push([texts.currentNode.data.trim().slice(0, 40), ratio]);
  }
  return bad;
})()
"""
NAMES = """
[...document.querySelectorAll("a, button, select, summary, nav, section, svg[role=img], ul[aria-label], [role=group]")]
  .filter((e) => e.checkVisibility() && !e.getAttribute("aria-label"))
  .filter((e) => !(e.querySelector(":scope > title") || e).textContent.trim())
  .map((e) => e.outerHTML.slice(0, 100))
"""


def show(browser: Browser, page: Path, width: int = 1280, scheme: str = "light") -> None:
    """Open the page on a screen of this width, in light or dark colors."""
    browser.set_width(width)
    browser.set_media("", scheme)
    browser.open(page)


def press(browser: Browser, key: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        browser._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


def shown(browser: Browser, gallery: int = 0) -> Any:
    items = f'document.querySelectorAll(".photos[aria-label]")[{gallery}].children'
    return browser.run(f"[...{items}].map((item) => !item.hidden)")


def test_no_error_and_no_request(browser: Browser, page: Path) -> None:
    show(browser, page)
    assert browser.run('performance.getEntriesByType("resource").length') == 0
    assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)") is True
    assert browser.run("getComputedStyle(document.querySelector('.headline')).fontWeight") == "700"
    assert browser.problems == []


def test_the_policy_refuses_requests_and_other_scripts(browser: Browser, page: Path) -> None:
    show(browser, page)
    refused = browser.run("""new Promise((resolve) => {
        const found = [];
        document.addEventListener("securitypolicyviolation", (event) => found.push(event.effectiveDirective));
        document.body.insertAdjacentHTML("beforeend", '<img src="http://127.0.0.1:9/x.png"><b style="color:red">x</b>');
        document.body.append(Object.assign(document.createElement("script"), { textContent: "window.bad = 1" }));
        fetch("http://127.0.0.1:9/").catch(() => setTimeout(() => resolve(found), 200));
    })""")
    assert {"img-src", "style-src-attr", "script-src-elem", "connect-src"} <= set(refused)
    assert browser.run("window.bad === undefined") is True


@pytest.mark.parametrize(("kind", "width", "scheme"), LOOKS)
def test_text_has_enough_contrast_and_fits_the_screen(
    browser: Browser, page: Path, kind: str, width: int, scheme: str
) -> None:
    show(browser, page, width, scheme)
    browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    assert browser.run(CONTRAST) == []
    assert browser.run("document.documentElement.scrollWidth") <= width, kind


def test_everything_has_a_name(browser: Browser, page: Path) -> None:
    show(browser, page)
    assert browser.run(NAMES) == []
    assert browser.run('["header", "nav", "main"].map((e) => document.querySelectorAll(e).length)') == [1, 1, 1]


@pytest.mark.parametrize("width", [1280, 360])
def test_the_tab_key_reaches_every_control_from_top_to_bottom(browser: Browser, page: Path, width: int) -> None:
    show(browser, page, width)
    browser.run("""window.controls = [...document.querySelectorAll(
        "a[href], button, input, select, summary, [tabindex='0']")].filter((e) => e.checkVisibility());
        window.reached = []""")
    for _ in range(browser.run("window.controls.length") + 5):
        press(browser, "Tab", 9)
        browser.run("void window.reached.push(window.controls.indexOf(document.activeElement))")
    found = browser.run("[...new Set(window.reached)]")
    assert [number for number in found if number >= 0] == list(range(browser.run("window.controls.length")))


def test_arrow_keys_turn_the_pages_of_a_gallery(browser: Browser, page: Path) -> None:
    show(browser, page)
    counts = browser.run('[...document.querySelectorAll(".photos[aria-label]")].map((g) => g.children.length)')
    number = next(number for number, count in enumerate(counts) if count > 8)
    first = [position < 8 for position in range(counts[number])]
    assert shown(browser, number) == first
    browser.run(f'document.querySelectorAll(".photos[aria-label]")[{number}].focus()')
    press(browser, "ArrowRight", 39)
    assert shown(browser, number) == [not is_shown for is_shown in first][:16]
    press(browser, "ArrowRight", 39)  # there is no further page
    assert shown(browser, number) == [not is_shown for is_shown in first][:16]
    press(browser, "ArrowLeft", 37)
    assert shown(browser, number) == first


def test_a_gallery_is_filtered_by_class(browser: Browser, page: Path) -> None:
    show(browser, page)
    name = browser.run("""(() => {
        const choice = document.querySelector(".filter select");
        choice.selectedIndex = 1;
        choice.dispatchEvent(new Event("change"));
        return choice.value;
    })()""")
    found = browser.run("""[...document.querySelectorAll(".photos[aria-label]")[0].children]
        .filter((item) => !item.hidden).map((item) => [item.dataset.true, item.dataset.predicted])""")
    assert found
    assert all(name in pair for pair in found)
    assert browser.run('document.querySelector(".filter [role=status]").textContent').startswith("1 to ")


def test_a_command_can_be_copied(browser: Browser, page: Path) -> None:
    show(browser, page)
    browser.run('document.querySelector("pre.command + button").click()')
    assert browser.run('document.querySelector("pre.command + button").textContent') in ("Copied", "Selected")
    assert browser.run("getSelection().toString().trim()").startswith("vitreous ")
    assert browser.problems == []
