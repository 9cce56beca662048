"""`vitreous models`, and what is said when weights cannot be downloaded."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hub_server import REVISION, Hub

from vitreous.training.weights.backbones import BACKBONES

Cli = Callable[..., Any]
Process = Callable[..., "subprocess.CompletedProcess[str]"]
REPO = BACKBONES["augreg-tiny"].repo
WEIGHTS = np.random.default_rng(8).bytes(50_000)


@pytest.fixture(autouse=True)
def _files(hub: Hub) -> None:
    hub.repos[REPO] = {"config.json": b"{}", "model.safetensors": WEIGHTS}


def rows(out: str) -> dict[str, list[str]]:
    return {
        line.split()[0]: line.split() for line in out.splitlines() if line.split()[:1] and line.split()[0] in BACKBONES
    }


def test_list_has_every_backbone_without_a_request(cli: Cli, hub: Hub) -> None:
    said = cli("models")
    assert (said.code, said.err) == (0, "")
    table = rows(said.out)
    assert list(table) == list(BACKBONES)
    assert table["augreg-tiny"][:8] == ["augreg-tiny", REPO, "23", "MB", "224", "px", "Apache-2.0", "no"]
    assert "https://ai.meta.com/resources/models-and-libraries/dinov3-license" in said.out
    assert hub.requests == []


def test_get_downloads_with_its_size_and_license_said_first(cli: Cli, hub: Hub) -> None:
    said = cli("models", "get", "augreg-tiny")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == f"augreg-tiny (23 MB, Apache-2.0) from {REPO}"
    assert lines[1].endswith(f"/snapshots/{REVISION}: complete")
    assert lines[-1] == "next: vitreous train DATA --pretrained augreg-tiny"
    assert rows(cli("models").out)["augreg-tiny"][7] == "yes"


def test_result_is_one_json_document_if_requested(cli: Cli) -> None:
    found = json.loads(cli("models", "get", REPO, "--json").out)
    assert found["source"] == f"hf://{REPO}@{REVISION}"
    assert (Path(found["path"]) / "model.safetensors").read_bytes() == WEIGHTS
    listed = {one["name"]: one for one in json.loads(cli("models", "--json").out)}
    assert (listed["augreg-tiny"]["is_cached"], listed["augreg-base"]["is_cached"]) == (True, False)


def test_damaged_file_is_replaced_by_get(cli: Cli) -> None:
    folder = Path(json.loads(cli("models", "get", "augreg-tiny", "--json").out)["path"])
    (folder / "model.safetensors").resolve().write_bytes(b"x")
    said = cli("inspect", f"hf://{REPO}")
    assert said.code == 2
    assert said.err.strip().endswith(
        f"has changed since it was downloaded; run `vitreous models get {REPO}` to replace it"
    )
    assert cli("models", "get", REPO).code == 0
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("get",), f"name=none: nothing to download; give one of {', '.join(BACKBONES)}"),
        (("get", "augreg-tin"), "backbone=augreg-tin: no such backbone; did you mean augreg-tiny?"),
        (("got", "x"), "action=got: is not known; write `vitreous models` or `vitreous models get NAME`"),
        (("get", "../x/y"), "hf://../x/y: is not the name of a repository; write hf://organization/name"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, words: tuple[str, ...], message: str) -> None:
    said = cli("models", *words)
    assert (said.code, said.err.strip()) == (2, message)


@pytest.mark.slow
def test_offline_mode_and_an_unreachable_proxy_are_respected(process: Process, hub: Hub) -> None:
    offline = process("models", "get", "augreg-tiny", HF_HUB_OFFLINE="1")
    proxied = process("models", "get", "augreg-tiny", http_proxy="http://127.0.0.1:9", no_proxy="")
    for done, cause in ((offline, "HF_HUB_OFFLINE"), (proxied, "refused")):
        assert done.returncode == 2
        assert done.stderr.startswith(f"hf://{REPO}: cannot be downloaded (")
        assert cause in done.stderr
    assert [path for _, path, _ in hub.requests if REPO in path] == []


@pytest.mark.slow
def test_ctrl_c_during_a_download_leaves_nothing_that_counts(cli: Cli, hub: Hub) -> None:
    hub.stalls_within = True
    command = [sys.executable, "-m", "vitreous", "models", "get", "augreg-tiny"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)) as running:
        deadline = time.monotonic() + 60
        while not any(method == "GET" and "model.safetensors" in path for method, path, _ in hub.requests):
            assert time.monotonic() < deadline, "the download did not begin"
            time.sleep(0.05)
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=120)
    assert (running.returncode, err.decode().strip()) == (130, "interrupted")
    hub.stalls_within = False
    assert rows(cli("models").out)["augreg-tiny"][7] == "no"
    assert cli("models", "get", "augreg-tiny").code == 0
