"""Imports go one way, and the linter that checks this sees every file and notices violations."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.contract.sources import PACKAGE, ROOMS, ROOT

pytest.importorskip("importlinter")


def _lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    code = f"import sys; sys.path.insert(0, {str(folder / 'src')!r})\n"
    code += "from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=120, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its rules, for tests that violate them."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(PACKAGE, tmp_path / "src" / "vitreous", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_imports_go_one_way() -> None:
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("training/step/horizon.py", "vitreous.use.run"),
        ("model/parts/mlp.py", "vitreous.data.config"),
        ("errors.py", "vitreous.tensors"),
        ("use/run.py", "vitreous.api"),
    ],
)
def test_import_in_the_wrong_direction_is_noticed(importer: str, imported: str, copy: Path) -> None:
    with (copy / "src" / "vitreous" / importer).open("a", encoding="utf-8") as file:
        file.write(f"\nimport {imported}\n")
    done = _lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"vitreous.{importer.removesuffix('.py').replace('/', '.')} -> {imported}" in done.stdout


@pytest.mark.parametrize(
    ("importer", "imported", "package"),
    [
        ("model/parts/pool.py", "vitreous.model.parts.encoder", "vitreous.model.parts"),
        ("data/survey/headers.py", "vitreous.data.loader", "vitreous.data"),
    ],
)
def test_import_cycle_is_noticed(importer: str, imported: str, package: str, copy: Path) -> None:
    with (copy / "src" / "vitreous" / importer).open("a", encoding="utf-8") as file:
        file.write(f"\nimport {imported}\n")
    back = copy / "src" / "vitreous" / f"{imported.removeprefix('vitreous.').replace('.', '/')}.py"
    with back.open("a", encoding="utf-8") as file:
        file.write(f"\nimport vitreous.{importer.removesuffix('.py').replace('/', '.')}\n")
    done = _lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"No cycles are allowed in {package}." in done.stdout


def test_layers_include_every_room_and_every_file_of_the_ground_floor() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    named = [name.strip() for layer in layers for name in layer.split("|")]
    there = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    there |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(named) == sorted(there)


def test_rooms_are_the_eight_known_ones() -> None:
    assert sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")) == sorted(ROOMS)
