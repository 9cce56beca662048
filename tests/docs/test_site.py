"""The site: its pages are generated from code, its links are alive, and it loads nothing from other hosts."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from tests.contract.sources import ROOT

from vitreous.cli.main import COMMANDS
from vitreous.recipe import keys

SCRIPTS = ROOT / "docs" / "scripts"


@pytest.fixture
def script() -> Iterator[object]:
    """Import a file of docs/scripts by its name."""
    sys.path.insert(0, str(SCRIPTS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    sys.path.remove(str(SCRIPTS))


def test_page_of_commands_has_every_command_once_with_its_options(script) -> None:
    page = script("reference").commands()
    assert re.findall(r"^## vitreous (\w+)$", page, re.MULTILINE) == list(COMMANDS)
    assert "vitreous train [DATA]" in page
    assert "`--budget STR`: Total time" in page


def test_page_of_errors_has_messages_with_their_advice(script) -> None:
    page = script("reference").errors_page()
    assert "- ConfigError: `kernel" not in page
    assert "MissingDependencyError: `timm=None: is not installed, and so has no registry; pip install timm`" in page
    assert page.count("\n- ") > 200


def test_page_of_the_run_folder_has_every_file(script) -> None:
    page = script("reference").run_folder_page()
    surface = (ROOT / "tests" / "contract" / "surface.txt").read_text(encoding="utf-8").split("[run folder]\n")[1]
    files = {line for line in surface.splitlines() if re.fullmatch(r"[\w./]+", line)} - {"example.png", "checkpoints"}
    assert files
    assert files - set(re.findall(r"^\| `([\w./-]+)` \|", page, re.MULTILINE)) == set()


def test_page_of_results_has_the_rows_of_the_readme(script) -> None:
    page = script("reference").results_page()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("| `vitreous train") and "seeds:" in line]
    assert rows
    assert all(row in page for row in rows)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_tutorial_becomes_a_notebook_with_all_its_code(page: Path, script) -> None:
    text = page.read_text(encoding="utf-8")
    found = nbformat.reads(script("notebooks").as_notebook(text), as_version=4)
    nbformat.validate(found)
    code = "\n".join(cell["source"] for cell in found.cells if cell["cell_type"] == "code")
    for line in re.findall(r"^\$ (vitreous \w+)", text, re.MULTILINE):
        assert line in code
    assert "```console" not in "".join(cell["source"] for cell in found.cells if cell["cell_type"] == "markdown")
    assert nbformat.writes(found) == script("notebooks").as_notebook(text), "the same page gives the same file"


def test_notebook_is_shown_as_a_page_that_becomes_the_same_notebook(script) -> None:
    text = (ROOT / "docs" / "tutorials" / "research.md").read_text(encoding="utf-8")
    notebook = script("notebooks").as_notebook(text)
    page = script("notebooks").as_page(notebook)
    assert page.startswith("# Your own attention, loss and augmentation\n\nThis page")
    assert "```python\n!vitreous train digits --import mine.py" in page
    assert script("notebooks").as_notebook(page) == notebook


def test_dead_links_and_requests_to_other_hosts_are_found(script, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#x">b</a><a href="#top">t</a><a href="https://example.org">e</a>'
        '<a href="c.html">c</a><a href="a.html#gone">g</a><img src="https://example.org/x.png">'
        '<script src="s.js"></script>',
        encoding="utf-8",
    )
    (tmp_path / "b.html").write_text('<p id="x">b</p>', encoding="utf-8")
    (tmp_path / "s.js").touch()
    (tmp_path / "s.css").write_text("@font-face {src: url(https://fonts.example.org/f)}", encoding="utf-8")
    assert list(script("check_site").problems(tmp_path)) == [
        "a.html: c.html leads nowhere",
        "a.html: a.html#gone leads to no place on that page",
        "a.html: <img> loads https://example.org/x.png",
        "s.css: loads https://fonts.example.org/f",
    ]


def test_keys_in_the_documents_exist() -> None:
    known = set(keys.rules())
    rooms = "|".join({key.split(".")[0] for key in known})
    named = {
        (page.name, key)
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for key in re.findall(rf"--((?:{rooms})\.[a-z_0-9]+)", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert {(page, key) for page, key in named if key not in known} == set()


@pytest.mark.slow
def test_site_builds_without_warnings_and_dead_links(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the packages of the group docs: `make docs` installs them")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    check = [sys.executable, str(SCRIPTS / "check_site.py"), str(tmp_path)]
    done = subprocess.run(check, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (0, "")
