"""This repository -> its files, parsed, for the contract tests."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "vitreous"
ROOMS = ("cli", "data", "model", "objective", "optim", "recipe", "training", "use")


def name_of(path: Path) -> str:
    """Return the name of a file as the lists of exceptions use it, e.g. `training/fit/loop.py`."""
    return path.relative_to(PACKAGE).as_posix()


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every file of the package, by name."""
    found = sorted(PACKAGE.rglob("*.py"))
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in found}


@cache
def project_files() -> tuple[Path, ...]:
    """Return the files that git tracks or would track; outside git, all files that are not hidden."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout.split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in ROOT.rglob("*") if not any(p.startswith(".") for p in path.relative_to(ROOT).parts)]
    return tuple(path for path in found if path.is_file())
