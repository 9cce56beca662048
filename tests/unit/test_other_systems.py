"""What other systems lack, simulated: modules and functions of POSIX, and `fork`. None of these systems was tried."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.pictures import write_pictures

_WITHOUT_POSIX = """
import multiprocessing, os, signal, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for module, name in ((os, "sched_getaffinity"), (os, "getloadavg"), (os, "sysconf"), (signal, "SIGHUP")):
    delattr(module, name)
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from vitreous.cli.main import main
    words = ["train", "photos", "--out", "run", "--epochs", "1", "--img-size", "8x12", "--model.patch_size=4",
             "--model.embed_dim=16", "--model.depth=1", "--model.num_heads=2", "--device=cpu", "--precision=fp32"]
    codes = [main(words), main(["predict", "run", "photos", "--out", "parts", "--workers", "2"]),
             main(["env", "--json"]), main([])]
    print("codes", codes)
"""


@pytest.mark.slow
def test_training_and_prediction_need_no_posix(tmp_path: Path) -> None:
    classes = {"con": ((200, 60, 50), 12), "Aux": ((70, 180, 60), 11)}
    write_pictures(tmp_path / "photos", classes, seed=3, name="nul {}.png", noise=20)
    (tmp_path / "script.py").write_text(_WITHOUT_POSIX, encoding="utf-8")
    command = [sys.executable, tmp_path / "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert done.stdout.splitlines()[-1:] == ["codes [0, 0, 0, 0]"], done.stderr[-3000:]
    assert "note: run cannot be locked on this system" in done.stdout
    assert len((tmp_path / "parts" / "part-00000.csv").read_text(encoding="utf-8").splitlines()) == 24
