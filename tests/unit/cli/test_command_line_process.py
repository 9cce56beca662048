"""What only real processes can show. Each test takes some seconds, most of them to import torch."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Process = Callable[..., "subprocess.CompletedProcess[str]"]
HEAVY = ("torch", "numpy", "sklearn", "matplotlib", "PIL", "yaml")


def _python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=60)
    return done.stdout.splitlines()


def test_help_and_version_do_not_wait_for_torch() -> None:
    code = f"""
import sys
from vitreous.cli.main import main
codes = [main(words) for words in (["--help"], ["--version"], ["trian"], [])]
print(codes, [name for name in {HEAVY} if name in sys.modules])
"""
    assert _python(code)[-1] == "[0, 0, 2, 0] []"


def test_python_m_vitreous_is_the_command(process: Process) -> None:
    done = process("trian")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "trian: no such command; did you mean train?\n")


def test_piped_output_is_plain_lines_in_any_encoding(process: Process, run: Path, photos: Path) -> None:
    done = process("predict", run, photos, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 61
    assert "\x1b" not in done.stdout
    assert "bild 3 \\xfc.png: " in done.stdout


def test_reader_that_stops_early_causes_no_traceback(run: Path, photos: Path) -> None:
    words = [sys.executable, "-m", "vitreous", "predict", str(run), *[str(photos)] * 50]  # more than a pipe holds
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(str(photos).encode())
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_ctrl_c_saves_a_checkpoint_and_shows_how_to_resume(photos: Path, tmp_path: Path, process: Process) -> None:
    out = tmp_path / "stopped run"
    words = ["train", str(photos), "--out", str(out), "--epochs", "100000", "--device", "cpu", "--precision", "fp32"]
    words += ["--model.embed_dim=16", "--model.depth=1", "--model.num_heads=2", "--train.checkpoint_every_s=0.1"]
    command = [sys.executable, "-m", "vitreous", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as running:
        assert running.stdout is not None
        _wait_for(out / "records.jsonl", '"kind": "checkpoint"')
        running.send_signal(signal.SIGINT)
        _, complained = running.communicate(timeout=60)
    assert running.returncode == 130
    found = re.fullmatch(
        rf"{re.escape(str(out))}: stopped at step (\d+) and saved; .+; continue with `vitreous train --resume (.+)`\n",
        complained,
    )
    assert found, complained
    assert (out / "checkpoints" / f"step-{int(found[1]):09d}.safetensors").is_file()


def _wait_for(path: Path, text: str) -> None:
    until = time.monotonic() + 60
    while not (path.is_file() and text in path.read_text(encoding="utf-8")):
        if time.monotonic() > until:
            pytest.fail(f"{text} did not appear in {path}")
        time.sleep(0.1)
