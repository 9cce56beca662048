"""docs/serve.md: its commands work against a server."""

import json
import re
import subprocess
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
    with serving(run.path, VITREOUS_API_KEY="a-key") as server:
        for command in COMMANDS:
            options = "" if "Authorization" in command else '--header "Authorization: Bearer $KEY" '
            text = command.replace("curl ", f"curl --fail-with-body --silent --show-error {options}")
            text = text.replace("http://127.0.0.1:8000", server.url).replace("photos-1", "tiny%20run")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=tmp_path,
                env={"KEY": "a-key", "PATH": "/usr/bin:/bin"},
                capture_output=True,
                encoding="utf-8",
                check=False,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            if "--output" not in command and "v2.json" not in command.partition(">")[2]:
                assert json.loads(done.stdout)
    with Image.open(tmp_path / "why.png") as why:
        assert why.size == (640, 427)
