"""Name of a package of npm -> its folder, or a skipped test."""

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "node_modules"


def node_package(name: str, version: str = "latest") -> Path:
    """Return the folder of an installed package; skips the test without it, or without Node."""
    if shutil.which("node") is None or not (FOLDER / name).is_dir():
        pytest.skip(f"needs Node, and `npm install --no-save {name}@{version}` in {FOLDER.parent}")
    return FOLDER / name
