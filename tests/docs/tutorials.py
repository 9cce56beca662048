"""Tutorials and quickstart: every command and every line of Python runs, in order, with short trainings.

`make docs-check` runs this file, which takes minutes. `make test` does not collect it: its name has no `test_`.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.sources import ROOT
from tests.hub_server import serving

PAGES = [ROOT / "docs" / "quickstart.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
SHORTER = (
    (r"--epochs [1-9]\d*", "--epochs 1"),
    (r"--budget \w+", "--epochs 1"),
    (r"--folds \d+", "--folds 2"),
    (r"--coverage [\d.]+", "--coverage 0.5"),
    (r"--reject [\d.]+", "--reject 0.1"),
    (r"(drawings\.py \w+)$", r"\1 --count 40"),
    (r"--count 360", "--count 60"),
    (r"(scans\.py .*)", r"\1 --groups 12"),
)
"""Pattern -> what replaces it in a command, so that a page runs in about a minute."""
DONE = "\0done\n"
INTERPRETER = """
import json, sys
sys.path.insert(0, "")
names = {"__name__": "tutorial"}
for line in sys.stdin:
    exec(json.loads(line), names)
    print("\\0done")
"""
FENCE = re.compile(r"^```(python|console)(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """The address of a hub with a tiny model under the name of DINOv2-S."""
    from transformers import Dinov2Config, Dinov2Model

    small = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    with tempfile.TemporaryDirectory() as folder:
        Dinov2Model(small).save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    with serving({"facebook/dinov2-small": files}) as server:
        yield server.url


@pytest.fixture
def environment(hub: str, tmp_path: Path) -> dict[str, str]:
    """An environment with `vitreous`, `python`, the hub, and caches of its own."""
    (tmp_path / "bin").mkdir()
    for name, words in {"vitreous": "-m vitreous ", "python": ""}.items():
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n', encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".curlrc").write_text("fail\nretry = 60\nretry-delay = 1\nretry-connrefused\n", encoding="utf-8")
    changes = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "CURL_HOME": str(tmp_path),
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path / "hf"),
        "VITREOUS_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **changes}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "docs").symlink_to(ROOT / "docs")
    session = Session(folder, environment)
    try:
        for language, title, block in FENCE.findall(page.read_text(encoding="utf-8")):
            if title:
                (folder / title).write_text(block, encoding="utf-8")
            elif language == "python":
                session.python(block)
            else:
                for command in re.findall(r"^\$ (.*)", re.sub(r"\\\n\s*", "", block), re.MULTILINE):
                    session.command(command.partition("  #")[0])
    finally:
        session.close()


class Session:
    """What a reader has open: a folder, a server in another terminal, and an interpreter."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.interpreter: subprocess.Popen[str] | None = None
        self.servers: list[subprocess.Popen[bytes]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def command(self, line: str) -> None:
        """Run a command, and fail if it does; a server keeps running."""
        if line.startswith("pip install"):
            return
        for pattern, shorter in SHORTER:
            line = re.sub(pattern, shorter, line)
        line = line.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        if line.startswith("vitreous serve") and "--write" not in line:
            words = ["bash", "-c", f"exec {line} --port {self.port}"]
            self.servers.append(subprocess.Popen(words, cwd=self.folder, env=self.environment))
            time.sleep(0.1)
            return
        self._run(["bash", "-c", line], line)

    def python(self, block: str) -> None:
        """Run a block in the Python that ran those before it."""
        if self.interpreter is None:
            words = [sys.executable, "-u", "-c", INTERPRETER]
            self.interpreter = subprocess.Popen(
                words, cwd=self.folder, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, encoding="utf-8",
            )  # fmt: skip
        stdin, stdout = self.interpreter.stdin, self.interpreter.stdout
        assert stdin
        assert stdout
        stdin.write(json.dumps(block) + "\n")
        stdin.flush()
        printed = []
        while (line := stdout.readline()) != DONE:
            printed.append(line)
            assert line, f"{block}\n{''.join(printed)}"  # the interpreter has ended

    def _run(self, words: list[str], shown: str) -> None:
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, encoding="utf-8",
                              timeout=1800, check=False)  # fmt: skip
        assert done.returncode == 0, f"{shown}\n{done.stdout}\n{done.stderr}"

    def close(self) -> None:
        """End the servers and remove what was written."""
        for process in filter(None, [*self.servers, self.interpreter]):
            process.terminate()
            process.communicate(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)
