"""The example runs on a trained run and real images, and reports each variant."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tests.contract.sources import ROOT

import vitreous as vt


@pytest.mark.slow
def test_example_reports_speed_and_agreement_of_each_variant(tmp_path: Path) -> None:
    run = vt.train("digits", epochs=1, out=tmp_path / "run", config={"data.img_size": 8, "model.patch_size": 2})
    files = []
    for number, image in enumerate(load_digits().images[:30]):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray((image * 15).astype("uint8")).save(files[-1])
    script = str(ROOT / "examples" / "faster_inference.py")
    done = subprocess.run([sys.executable, script, run.path, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, merging, larger = done.stdout.splitlines()
    assert first.startswith("original: ")
    assert first.endswith("100.0% the same class")
    assert "tokens merged in each block" in merging
    assert larger.startswith("patches of 4 px: ")
