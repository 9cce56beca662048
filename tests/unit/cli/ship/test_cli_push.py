"""`vitreous push`: the list, the question, what is sent; and `hf://` as a model of every command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.hub_server import Hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""huggingface_hub calls its HTTP client in an old way."""
Cli = Callable[..., Any]
NAME = "hf://org/my-model"


@pytest.fixture(autouse=True)
def _token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")


@pytest.fixture
def trained(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may modify."""
    return Path(shutil.copytree(run, tmp_path / "my run"))


def test_files_are_listed_and_nothing_is_sent_without_consent(trained: Path, cli: Cli, hub: Hub) -> None:
    said = cli("push", trained, NAME)
    assert said.code == 2
    heading, *rows, left, opened = said.out.splitlines()
    assert heading.split() == ["file", "on", "the", "hub", "bytes"]
    assert [row.split()[:2] for row in rows] == [
        ["README.md", "new"], ["config.json", "new"], ["model.safetensors", "new"],
    ]  # fmt: skip
    assert left.startswith("not uploaded: ")
    assert "predictions.csv" in left
    assert opened == "opened by vitreous and timm"
    assert said.err == "yes=False: nothing was sent to hf://org/my-model; add --yes to upload these files\n"
    assert (hub.sent(), hub.repos) == ([], {})


def test_model_is_sent_with_consent_and_every_command_opens_it(
    trained: Path, cli: Cli, hub: Hub, photos: Path, tmp_path: Path
) -> None:
    said = cli("push", trained, NAME, "--yes")
    assert (said.code, said.err) == (0, "")
    *_, sent, following = said.out.splitlines()
    assert sent == f"{hub.url}/org/my-model: 3 files sent, and all compared with what the hub has"
    assert following == f"next: vitreous predict {NAME}@{hub.revisions['org/my-model']} IMAGE"
    again = cli("push", trained, NAME)
    assert (again.code, "already there" in again.out) == (0, True)
    photo = sorted(photos.rglob("*.png"))[4]
    ours = json.loads(cli("predict", trained, photo, "--json").out)
    theirs = json.loads(cli("predict", NAME, photo, "--json").out)
    assert theirs[0]["probabilities"] == pytest.approx(ours[0]["probabilities"], abs=1e-6)
    assert json.loads(cli("evaluate", NAME, photos, "--json").out)["accuracy"] > 0
    assert cli("inspect", NAME).out.startswith(f"run {NAME}\n")
    assert cli("explain", NAME, photo, "--out", tmp_path / "why").code == 0
    assert cli("embed", NAME, photo, photo, "--nearest", photo).code == 0
    assert cli("convert", NAME, "--to", "torchvision", "--out", tmp_path / "x.pth").code in (0, 2)
    assert not Path("hf:").exists()


def test_own_images_are_not_known_on_the_hub(trained: Path, cli: Cli) -> None:
    cli("push", trained, NAME, "--yes")
    for words in (("evaluate", NAME), ("export", NAME, "--to", "torch"), ("explain", NAME, "--check")):
        said = cli(*words)
        assert said.code == 2
        assert said.err.startswith(f"run={NAME}: is a model ")


def test_exported_file_is_named_after_the_repository(
    trained: Path, cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("push", trained, NAME, "--yes")
    monkeypatch.chdir(tmp_path)
    assert cli("export", NAME, "--to", "html", "--data", photos).code == 0
    assert (tmp_path / "my-model.html").is_file()


def test_result_is_one_json_document_if_requested(trained: Path, cli: Cli, hub: Hub) -> None:
    found = json.loads(cli("push", trained, NAME, "--yes", "--json", "--with-report").out)
    assert found["source"] == f"{NAME}@{hub.revisions['org/my-model']}"
    assert sorted(found["sent"]) == ["README.md", "config.json", "model.safetensors", "report.html"]


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_question_on_a_terminal_decides(answer: str, trained: Path, hub: Hub) -> None:
    pty = pytest.importorskip("pty", reason="makes a terminal")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vitreous", "push", str(trained), NAME]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        os.write(ours, f"{answer}\n".encode())
        out, err = running.communicate(timeout=300)
    assert "upload these files to hf://org/my-model (everyone may read a new repository)? [y/N]" in out
    assert running.returncode == (0 if answer == "y" else 2), err
    assert ("org/my-model" in hub.repos) == (answer == "y")
    for end in (ours, theirs):
        os.close(end)
