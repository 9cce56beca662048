"""The documents: their commands are those of CI, their Python runs, and their links and paths exist."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from tests.contract.sources import PACKAGE, ROOT, modules, project_files
from tests.contract.test_budgets import functions

from vitreous.cli.main import COMMANDS, app, spell_out_keys, without_imports

SKIP = "# doctest: skip"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = ROOT / "docs" / "tutorials"


def fences(page: Path, language: str) -> list[str]:
    """Return the contents of the fences of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}(?: [^\n]*)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the commands of shell fences and of tables, without prompts and comments."""
    text = page.read_text(encoding="utf-8")
    lines = [line.removeprefix("$ ") for block in fences(page, "console") for line in joined(block) if line[:2] == "$ "]
    cells = [
        span for row in text.splitlines() if row.startswith("|") for span in re.findall(r"`(vitreous [^`…]+)`", row)
    ]
    return [line.partition(" #")[0].partition(" > ")[0].strip() for line in lines] + cells


def joined(block: str) -> list[str]:
    """Return the lines of a block, with those that a backslash continues in one."""
    return re.sub(r"\\\n\s*", "", block).splitlines()


def calls() -> list[tuple[str, str]]:
    """Return page and line of every command `vitreous …` in the documents."""
    found = [(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in commands(page)]
    return [(page, line) for page, line in found if line.startswith("vitreous ")]


def python_blocks() -> list[tuple[str, int, str]]:
    """Return page, number and code of the Python fences of all pages but those that tests/docs/tutorials.py runs."""
    pages = [page for page in PAGES if page.parent != TUTORIALS and page.name != "quickstart.md"]
    return [(page.relative_to(ROOT).as_posix(), number, code)
            for page in pages for number, code in enumerate(fences(page, "python"))]  # fmt: skip


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def test_ci_runs_exactly_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    run = [line for line in script if line.startswith("make ")]  # what precedes them installs a browser
    assert sorted(run) == sorted(set("".join(fences(README, "sh")).splitlines()))
    assert {"make demo", "make test", "make check"} <= set(run)


def test_ci_script_is_executable_and_stops_at_the_first_failure() -> None:
    path = ROOT / ".ci" / "run"
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o111


def test_every_make_target_in_the_documents_exists() -> None:
    named = {
        target
        for path in project_files()
        if path.suffix == ".md" or path.name == "run"
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"demo", "test", "check"} <= named
    assert named <= targets()


@pytest.mark.parametrize(("page", "line"), calls())
def test_command_exists_with_these_arguments_and_options(page: str, line: str) -> None:
    words, _ = without_imports(shlex.split(line)[1:])
    if words[0] == "COMMAND":  # in a sentence about all of them
        return
    assert words[0] in COMMANDS
    _, bound, ignored = app.parse_args(spell_out_keys(words), exit_on_error=False, print_error=False)
    assert bound.arguments or len(words) == 1  # the name of a command in a sentence
    assert not ignored


def test_readme_shows_every_command() -> None:
    assert {shlex.split(line)[1] for page, line in calls() if page == "README.md"} == set(COMMANDS)


def test_extras_in_the_documents_exist() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    named = {name for page in PAGES for found in re.findall(r"vitreous\[([\w,-]+)\]", page.read_text(encoding="utf-8"))
             for name in found.split(",")}  # fmt: skip
    assert {"hub", "export", "serve"} <= named
    assert named <= set(extras)


@pytest.fixture
def weights_of_other_libraries(tmp_path: Path) -> None:
    """Random weights in the files that the README opens."""
    from transformers import ViTConfig, ViTForImageClassification

    from vitreous.model import create_model, export_weights

    tiny = create_model("vit_tiny_patch16_224", seed=0)
    export_weights(tiny, tmp_path / "timm.safetensors", to="timm")
    export_weights(tiny, tmp_path / "torchvision.pth", to="torchvision")
    small = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32)
    ViTForImageClassification(small).save_pretrained(tmp_path / "transformers-folder")


@pytest.mark.usefixtures("weights_of_other_libraries")
@pytest.mark.parametrize(("page", "number", "code"), [b for b in python_blocks() if not b[2].startswith(SKIP)])
def test_python_of_the_documents_runs(
    page: str, number: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{page}, block {number}", "exec"), {"__name__": "document"})


@pytest.mark.parametrize(("page", "number", "code"), [b for b in python_blocks() if b[2].startswith(SKIP)])
def test_skipped_python_compiles_and_gives_a_reason(page: str, number: int, code: str) -> None:
    compile(code, f"{page}, block {number}", "exec")
    assert re.match(rf"{SKIP} \(.+\)\n", code)


def test_links_lead_to_existing_files() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    generated = {f"docs/{name}" for name in re.findall(r": (reference/[\w-]+\.md)$", nav, re.MULTILINE)}
    broken = {}
    for path in project_files():
        if path.suffix == ".md":
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
                target = (path.parent / link).resolve()
                if not target.exists() and target.relative_to(ROOT).as_posix() not in generated:
                    broken[path.name] = link
    assert broken == {}


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_in_the_document_exist(document: str) -> None:
    named = re.findall(r"`([\w./-]+(?:\.py|/))`", (ROOT / document).read_text(encoding="utf-8"))
    assert len(named) > 10
    assert [path for path in named if not ((PACKAGE / path).exists() or (ROOT / path).exists())] == []


def test_functions_in_the_tour_are_in_the_files_before_them() -> None:
    tour = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", tour)
    defined = {name for name, _ in functions()} | {
        f"{path} {node.name}"
        for path, tree in modules().items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    assert len(named) > 10
    assert [f"{path} {name}" for path, name in named if f"{path} {name}" not in defined] == []


def test_documents_have_no_placeholders() -> None:
    gaps = re.compile(r"@@|@[A-Z_]{3,}@|TODO|FIXME|XXX")
    found = {page.name: gaps.findall(page.read_text(encoding="utf-8")) for page in PAGES}
    assert not any(found.values()), found
