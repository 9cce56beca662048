"""This repository -> its files, parsed: what the contract tests look through."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "vitreous"
ROOMS = ("cli", "data", "model", "objective", "optim", "recipe", "training", "use")


def name_of(path: Path) -> str:
    """A file of the package as the lists of exceptions name it, e.g. `training/fit/loop.py`."""
    return path.relative_to(PACKAGE).as_posix()


@cache
def modules() -> dict[str, ast.Module]:
    """Every file of the package by its name, as a tree."""
    found = sorted(PACKAGE.rglob("*.py"))
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in found}


@cache
def project_files() -> tuple[Path, ...]:
    """What is tracked or would be: everything that git does not ignore; outside git, everything that is not hidden."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout.split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in ROOT.rglob("*") if not any(p.startswith(".") for p in path.relative_to(ROOT).parts)]
    return tuple(path for path in found if path.is_file())
