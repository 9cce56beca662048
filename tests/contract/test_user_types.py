"""A user's program passes strict type checking with the types that the package brings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vitreous

SCRIPT = Path(__file__).with_name("user_script.py")


def check(script: Path, tmp_path: Path) -> str:
    """Return what mypy reports of a program, as outside of this project."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "mypy.ini").write_text("[mypy]\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "--cache-dir", "cache", script]
    place = {"PYTHONPATH": str(Path(vitreous.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | place)
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_program_of_a_user_passes_mypy_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    assert check(SCRIPT, tmp_path).startswith("Success: no issues found")
    wrong = tmp_path / "wrong.py"
    program = 'import vitreous as vt\n\nvt.train("digits", epoch=3)\nname: str = vt.load_run("x").accuracy\n'
    wrong.write_text(program, encoding="utf-8")
    reported = check(wrong, tmp_path)
    assert '"epoch"' in reported
    assert '"float", variable has type "str"' in reported
