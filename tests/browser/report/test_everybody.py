"""All pages that vitreous writes: axe-core finds nothing in them, they fit a phone, and the report can be printed."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.browser.report.test_report import CONTRAST, show
from tests.browser.runtime import Browser
from tests.unit.use.test_multilabel_run import table, tagged  # noqa: F401

from vitreous.training.folder.records import ignore
from vitreous.use.doctor.examiner import examine_data
from vitreous.use.doctor.page import write_page
from vitreous.use.report.comparison import write_comparison
from vitreous.use.run import Run

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WIDTHS = (1280, 360)
A4_PX = 718
"""Width of an A4 page without its margins, at 96 dpi."""
USE = """
(async () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  const example = document.querySelector("[data-part=example]:not([hidden])"), end = Date.now() + 20000;
  if (!example) return;
  example.click();
  while (!document.querySelector("figcaption[data-part=caption]").textContent.includes("raise the logit")) {
    if (Date.now() > end) throw new Error("the model in the page does not answer");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
})()
"""
"""Open everything that is folded, and classify the example."""
AXE = """
axe.run(document, { resultTypes: ["violations"] }).then(({ violations, passes }) => [
  passes.length, violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html.slice(0, 200))]),
])
"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, which the package brings in its own folder."""
    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("needs axe-core, in the package axe-playwright-python")
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page_of(run: Run, tagged: Run, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:  # noqa: F811
    """Write a page of this kind."""
    folder = tmp_path_factory.mktemp("pages")

    def compared() -> Path:
        write_comparison([run.path, Path(shutil.copytree(run.path, folder / "again"))], folder / "comparison.html")
        return folder / "comparison.html"

    def examined() -> Path:
        write_page(folder / "data.html", examine_data(str(photos), ignore))
        return folder / "data.html"

    makers = {
        "report": lambda: run.path / "report.html",
        "report with labels": lambda: tagged.path / "report.html",
        "comparison": compared,
        "data": examined,
        "anatomy": lambda: run.explain_model().save(folder / "anatomy"),
    }
    return lambda kind: makers[kind]()


@pytest.mark.parametrize("kind", ["report", "report with labels", "comparison", "data", "anatomy"])
def test_axe_finds_nothing_and_the_page_fits_a_phone(
    kind: str, page_of: Callable[[str], Path], axe: str, browser: Browser
) -> None:
    page = page_of(kind)
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            show(browser, page, width, scheme)
            browser.run(USE)
            browser.run(f"{axe};0")
            num_passed, violations = browser.run(AXE)
            assert violations == [], (width, scheme)
            assert num_passed > 15
            assert browser.run("document.documentElement.scrollWidth") <= width, scheme
            assert browser.problems == []


@pytest.fixture
def printed(run: Run, browser: Browser) -> Any:
    """The report as a printer gets it, from a browser with dark colors."""
    show(browser, run.path / "report.html", A4_PX, "dark")
    browser.run(USE)
    browser.set_media("print", "dark")
    yield browser
    browser.set_media("", "light")


def test_print_shows_what_the_script_has_hidden(printed: Browser) -> None:
    hidden = "[...document.querySelectorAll('.photos li[hidden]')]"
    assert printed.run(f"{hidden}.length") > 0  # on other pages of a gallery
    assert printed.run(f"{hidden}.filter((item) => !item.checkVisibility()).length") == 0


def test_print_has_no_controls(printed: Browser) -> None:
    controls = "[...document.querySelectorAll('button, select, input, nav, .skip')]"
    assert printed.run(f"{controls}.length") > 10
    assert printed.run(f"{controls}.filter((e) => e.checkVisibility()).map((e) => e.outerHTML)") == []


def test_print_is_dark_on_white(printed: Browser) -> None:
    assert printed.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert printed.run(CONTRAST) == []


def test_print_cuts_nothing_off(printed: Browser) -> None:
    assert printed.run("document.documentElement.scrollWidth") <= A4_PX
    boxes = "[...document.querySelectorAll('main, main *:not(svg *)')].filter((e) => e.checkVisibility())"
    cut = f"{boxes}.filter((e) => e.getBoundingClientRect().right > {A4_PX}).map((e) => e.outerHTML.slice(0, 100))"
    assert printed.run(cut) == []
