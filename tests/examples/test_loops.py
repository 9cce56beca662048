"""The loops of other libraries train a model that vitreous opens; skipped where the library is not installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.contract.sources import ROOT

import vitreous as vt


@pytest.mark.slow
@pytest.mark.parametrize("library", ["lightning", "accelerate"])
def test_loop_trains_a_model_that_is_opened_again(library: str, tmp_path: Path) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    script, file = ROOT / "examples" / f"{library}_loop.py", tmp_path / "digits.safetensors"
    command = [sys.executable, str(script), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"accuracy ([0-9.]+)%; the model is in .*digits\.safetensors\n", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 75
    assert vt.load_model(file)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.safetensors"]
