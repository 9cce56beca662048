"""The documents: their commands are those of CI, their Python runs, and their links and paths exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from tests.contract.sources import PACKAGE, ROOT, modules, project_files
from tests.contract.test_budgets import functions

from vitreous.cli.main import COMMANDS, app, spell_out_keys

README = (ROOT / "README.md").read_text(encoding="utf-8")
SKIP = "# doctest: skip"


def fences(language: str) -> list[str]:
    """Return the contents of the fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(*languages: str) -> list[str]:
    """Return the lines of shell fences without prompts and comments."""
    lines = "".join(text for language in languages for text in fences(language)).splitlines()
    return [line for line in (line.partition(" #")[0].removeprefix("$ ").strip() for line in lines) if line]


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def test_ci_runs_exactly_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    run = [line for line in script if line.startswith("make ")]  # what precedes them installs a browser
    assert sorted(run) == sorted(set(commands("sh")))
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


@pytest.mark.parametrize("line", [c for c in commands("sh", "console") if c.startswith("vitreous ")])
def test_command_exists_with_these_arguments_and_options(line: str) -> None:
    words = shlex.split(line)[1:]
    assert words[0] in COMMANDS
    _, bound, ignored = app.parse_args(spell_out_keys(words), exit_on_error=False, print_error=False)
    assert bound.arguments
    assert not ignored


def test_readme_shows_every_command() -> None:
    shown = {shlex.split(line)[1] for line in commands("sh", "console") if line.startswith("vitreous ")}
    assert shown == set(COMMANDS)


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
@pytest.mark.parametrize("number", [n for n, text in enumerate(fences("python")) if not text.startswith(SKIP)])
def test_python_of_the_readme_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(fences("python")[number], f"README.md, block {number}", "exec"), {"__name__": "readme"})


def test_skipped_python_compiles_and_gives_a_reason() -> None:
    skipped = [text for text in fences("python") if text.startswith(SKIP)]
    for text in skipped:
        compile(text, "README.md", "exec")
        assert re.match(rf"{SKIP} \(.+\)\n", text)
    assert len(skipped) < len(fences("python"))


def test_links_lead_to_existing_files() -> None:
    broken = {}
    for path in project_files():
        if path.suffix == ".md":
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
                if not (path.parent / link).exists():
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


def test_readme_has_no_placeholders() -> None:
    assert re.findall(r"@[A-Z_]{3,}@|TODO|FIXME|XXX", README) == []
