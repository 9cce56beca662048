"""Cases of `use/export/hub/push.py` and `cli/ship/push.py`: a model that is not uploaded, and why."""

import errno
import io
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest
from huggingface_hub import constants
from tests.advice.hub_cases import hub_in
from tests.advice.use_cases import finished
from tests.advice.walk import Refusals, case
from tests.hub_server import Hub

from vitreous.cli.ship.push import push
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.report.page import write_report
from vitreous.use.run import Run

NAME, OTHER = "hf://org/new", "hf://org/other"


@contextmanager
def writable_hub(folder: Path) -> Iterator[Hub]:
    """Serve a hub that a token may write to."""
    with hub_in(folder) as hub, pytest.MonkeyPatch.context() as changes, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # huggingface_hub calls its HTTP client in an old way
        changes.setenv("HF_TOKEN", "hf_secret")
        changes.setattr(constants, "HF_HUB_DISABLE_XET", True)
        changes.setattr(time, "sleep", lambda seconds: None)
        yield hub


@case
def models_that_are_not_uploaded(folder: Path) -> Refusals:
    run = Run(finished(folder))
    with writable_hub(folder) as hub:
        yield lambda: run.push("org/new"), "write hf://organization/name"
        with patch.dict("os.environ"):
            del constants.os.environ["HF_TOKEN"]
            yield lambda: run.push(NAME), "run `hf auth login`, or set HF_TOKEN"
        yield lambda: run.push(NAME, with_report=True), "write it with `vitreous report`"
        write_report(RunFolder(run.path))
        hub.denies = True
        yield lambda: run.push(NAME, with_report=True), "run `hf auth login` with one that has write access"
        hub.denies, hub.drops_uploads = False, 100
        yield lambda: run.push(NAME, with_report=True), "the same command continues"
        hub.drops_uploads = 0
        with patch.object(Path, "write_bytes", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            yield lambda: run.push(NAME), "set TMPDIR to another folder"
        with patch("tempfile.tempdir", str(folder)):
            assert run.push(NAME, with_report=True).sent
        yield lambda: run.push(NAME, private=True), "make it private on its page, or leave this option out"
        hub.private.add("org/new")
        assert run.push(NAME, private=True).source
        hub.spoils = True
        hub.large.clear()
        yield lambda: run.push(OTHER), "push again"
        hub.spoils = False
        hub.large.clear()
        assert run.push(OTHER).sent == ["model.safetensors"]
        hub.repos["org/new"]["preprocessor_config.json"] = b"{}"
        yield lambda: run.push(NAME), "delete it there, or choose another name"
        del hub.repos["org/new"]["preprocessor_config.json"]
        assert run.push(NAME).source


@case
def questions_before_an_upload(folder: Path) -> Refusals:
    run = finished(folder)
    terminal = io.StringIO("n\ny\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    with writable_hub(folder), redirect_stdout(io.StringIO()):
        yield lambda: push(run, NAME), "add --yes to upload these files"
        push(run, NAME, yes=True)
        with patch.object(sys, "stdin", terminal):
            yield lambda: push(run, OTHER), "answer y to upload these files"
            push(run, OTHER)
