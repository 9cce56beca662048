"""Requests derived from `/openapi.json` by schemathesis -> answers that keep what the description promises."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz.campaign import FIRST, num_examples
from tests.unit.use.conftest import photos, run, run_on  # noqa: F401
from tests.unit.use.serve.process import serving

from vitreous.use.run import Run

CONFIG = """
hooks = "pictures.py"
request-timeout = 120
[parameters]
"path.model" = "{model}"
"path.version" = "{version}"
[generation]
mode = "all"
max-examples = {examples}
[checks]
max_response_time = 100
[checks.positive_data_acceptance]  # a text may be no image, and a URL that of a host that is not allowed
expected-statuses = ["2xx", 403, 404, 422]
[[operations]]  # a description cannot say that the shape is the number of images
include-path-regex = "/infer$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 422]
"""
HOOKS = """
import io
import schemathesis
from hypothesis import strategies as st
from PIL import Image

def picture(color):
    file = io.BytesIO()
    Image.new("RGB", (14, 9), color).save(file, "PNG")
    return file.getvalue()

channel = st.integers(0, 255)
pictures = st.one_of(st.tuples(channel, channel, channel).map(picture), st.binary(max_size=99))
schemathesis.openapi.media_type("image/*", pictures)
"""
KEY = "a-key"


@pytest.mark.parametrize("key", ["", KEY])
def test_server_answers_as_it_is_described(key: str, run: Run, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("fastapi")
    pytest.importorskip("schemathesis")
    version = hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()[:12]
    text = CONFIG.format(model=run.path.name, version=version, examples=num_examples(1 / 16))
    (tmp_path / "schemathesis.toml").write_text(text)
    (tmp_path / "pictures.py").write_text(HOOKS)
    with serving(run.path, **({"VITREOUS_API_KEY": key} if key else {})) as server:
        words = [f"{server.url}/openapi.json", "--checks", "all", "--seed", str(FIRST), "--no-color"]
        words += ["--header", f"Authorization: Bearer {key}"] if key else []
        command = [sys.executable, "-m", "schemathesis.cli", "run", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.process.poll() is None
