"""docs/serve.md: its commands work against a server."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from tests.contract.sources import ROOT
from tests.unit.use.serve.conftest import encoded
from tests.unit.use.serve.process import serving

from vitreous.use.run import Run

TEXT = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
COMMANDS = [line for line in re.findall(r"^\$ (.+)$", TEXT, re.MULTILINE) if "curl" in line or line.startswith("echo")]


@pytest.mark.slow
def test_curl_commands_of_the_documentation_work(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    (tmp_path / "photo.jpg").write_bytes(encoded(1, "JPEG", (40, 60)))
    (tmp_path / "other.png").write_bytes(encoded(2))
    assert len(COMMANDS) >= 8
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host, ThreadPoolExecutor(1) as pool:
        pool.submit(host.serve_forever)
        try:
            run_commands(run, f"127.0.0.1:{host.server_port}", tmp_path)
        finally:
            host.shutdown()
    with Image.open(tmp_path / "why.png") as why:
        assert why.size == (640, 427)


def run_commands(run: Run, host: str, folder: Path) -> None:
    """Run the commands against a server, which may fetch images from a host."""
    with serving(run.path, "--allow-urls", host, VITREOUS_API_KEY="a-key") as server:
        for command in COMMANDS:
            options = "" if "Authorization" in command else '--header "Authorization: Bearer $KEY" '
            text = command.replace("curl ", f"curl --fail-with-body --silent --show-error {options}")
            text = text.replace("http://127.0.0.1:8000", server.url).replace("photos-1", "tiny%20run")
            text = text.replace("https://images.example.org/cat.jpg", f"http://{host}/photo.jpg")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=folder,
                env={"KEY": "a-key", "PATH": "/usr/bin:/bin"},
                capture_output=True,
                encoding="utf-8",
                check=False,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            if "--output" not in command and "v2.json" not in command.partition(">")[2]:
                assert json.loads(done.stdout)
