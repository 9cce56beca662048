"""`vitreous serve` as a process, under load: it drains and takes new models; the files that it writes work."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from PIL import Image
from tests.unit.use.serve.conftest import encoded
from tests.unit.use.serve.process import post, serving, wait_until_it_serves
from tests.unit.use.serve.test_models import retrain

Cli = Callable[..., Any]
CLIENTS = 8


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Skip without the extra; what the command sets in the environment ends with the test."""
    pytest.importorskip("fastapi")
    with patch.dict(os.environ):
        yield


class Load:
    """Clients that send one request after the other, each on a connection of its own, until they are stopped.

    A client ends with the first request that has no answer, unless it `goes_on`.

    Attributes:
        statuses: Status of each answer.
        versions: Version of the model that gave each answer.
        errors: Requests without an answer.
    """

    def __init__(self, url: str, *, goes_on: bool = False) -> None:
        self.statuses: list[int] = []
        self.versions: list[str] = []
        self.errors: list[Exception] = []
        self._url, self._goes_on, self._is_over = url, goes_on, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        image = encoded(seed)
        while not self._is_over.is_set():
            try:
                status, answer = post(self._url, image)
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(error)
                if not self._goes_on:
                    return
                time.sleep(0.02)
                continue
            self.statuses.append(status)
            self.versions.append(answer.get("version", ""))

    def wait_for(self, count: int) -> None:
        """Wait until there are this many more answers."""
        wanted, end = len(self.statuses) + count, time.monotonic() + 60
        while len(self.statuses) < wanted:
            assert time.monotonic() < end, (self.statuses[-5:], self.errors)
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_server_answers_what_it_has_begun(number: signal.Signals, run: Path) -> None:
    with serving(run) as server, Load(server.url) as load:
        load.wait_for(40)
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
    assert set(load.statuses) == {200}
    assert len(load.errors) == CLIENTS  # each one's last request found no server


@pytest.mark.slow
def test_new_model_is_taken_under_load_without_losing_a_request(run: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(run, tmp_path / "own"))
    (own / "familiarity.safetensors").unlink(missing_ok=True)
    with serving(own) as server:
        with Load(server.url) as load:
            load.wait_for(40)
            retrain(own / "model.safetensors")
            before, end = load.versions[0], time.monotonic() + 30
            while load.versions[-1] == before:
                assert time.monotonic() < end
                time.sleep(0.02)
            load.wait_for(40)
        assert (set(load.statuses), load.errors) == ({200}, [])
        assert len(set(load.versions)) == 2
        events = [json.loads(line) for line in server.log.read_text().splitlines()]
        assert [e["version"] for e in events if e.get("event") == "replaced"] == [load.versions[-1]]


@pytest.mark.slow
def test_server_that_is_killed_and_started_again_loses_only_requests_in_flight(run: Path) -> None:
    with ExitStack() as servers:
        first = servers.enter_context(serving(run))
        with Load(first.url, goes_on=True) as load:
            load.wait_for(40)
            first.process.kill()
            first.process.wait(30)
            servers.enter_context(serving(run, port=int(first.url.rpartition(":")[2])))
            load.wait_for(40)
    assert set(load.statuses) == {200}
    in_flight = [error for error in load.errors if not isinstance(error, ConnectionRefusedError)]
    assert len(in_flight) <= CLIENTS < len(load.errors)


@pytest.mark.slow
def test_lines_and_log_of_a_server(well_measured: Path, image: Path) -> None:
    with serving(well_measured, VITREOUS_API_KEY="secret") as server:
        assert server.lines[0].startswith("measured: version ")
        assert ", 3 classes, sets of classes with coverage 0.95" in server.lines[0]
        assert server.lines[1] == f"{server.url}/ is a page for people; programs send images to /predict"
        assert post(server.url, image.read_bytes())[0] == 401
        assert post(server.url, image.read_bytes(), key="secret")[0] == 200
        bomb = io.BytesIO()
        Image.new("L", (8000, 7000)).save(bomb, "PNG")
        assert "is over the limit of 50,000,000 px" in post(server.url, bomb.getvalue(), key="secret")[1]["error"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [line["status"] for line in lines] == [401, 200, 422]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environment", "names", "refused"),
    [
        ((), {}, ["localhost", "127.0.0.1"], ["photos.example.org"]),
        (("--allow-host", "a.org", "--allow-host", "B.example"), {}, ["a.org", "b.example"], ["b.org"]),
        ((), {"VITREOUS_API_KEY": "secret"}, ["photos.example.org"], []),
        (("--host", "127.0.0.2"), {}, ["127.0.0.2"], ["photos.example.org"]),
        (("--host", "0.0.0.0"), {}, ["photos.example.org"], []),
        (("--host", "0.0.0.0", "--allow-host", "a.org"), {}, ["a.org", "localhost"], ["photos.example.org"]),
    ],
)
def test_name_in_requests_is_checked_where_a_website_could_point_its_own_to_the_server(
    words: tuple[str, ...], environment: dict[str, str], names: list[str], refused: list[str], run: Path
) -> None:
    with serving(run, *words, **environment) as server:
        port = int(server.url.rpartition(":")[2])
        for name, status in {**dict.fromkeys(names, 200), **dict.fromkeys(refused, 403)}.items():
            connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=30)
            connection.request("GET", "/v2/health/ready", headers={"Host": f"{name}:{port}"})
            answer = connection.getresponse()
            assert (name, answer.status) == (name, status)
            assert ("--allow-host" in answer.read().decode()) == (status == 403)
            connection.close()


def test_port_that_is_in_use_is_refused(run: Path, cli: Cli) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = cli("serve", run, "--port", port)
    assert (said.code, said.out) == (2, "")
    assert (
        said.err
        == f"port={port}: cannot listen at 127.0.0.1 (Address already in use); choose another --port or --host\n"
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--port", "70000"), "serve.port=70000: must be from 0 to 65,535; the default is 8000"),
        (("--port", "8000.5"), "--port=8000.5: must be a whole number; see `vitreous serve --help`"),
        (("--max-mb", "0"), "serve.max_mb=0: must be from 1 to 1,048,575; the default is 32"),
        (("--timeout", "0"), "serve.timeout=0: must be from 1 to 1,048,575; the default is 60"),
        (("--keep-versions", "0"), "serve.keep_versions=0: must be from 1 to 1,048,575; the default is 1"),
        (("--keep-versions", "1.5"), "--keep-versions=1.5: must be a whole number; see `vitreous serve --help`"),
        (
            ("--allow-urls", "images.example.org", "https://example.org/a"),
            "allow_urls=https://example.org/a: is not a host; write its name without https:// and path, as "
            "images.example.org",
        ),
        (
            ("--allow-host", "photos.example.org:80"),
            "allow_host=photos.example.org:80: is not the name of a host; write it without https:// and port, as "
            "photos.example.org",
        ),
        (("--coverage", "95"), "coverage=95.0: must be in (0, 1); did you mean 0.95?"),
        (("--write", "kubernetes"), "--write=kubernetes: must be docker or systemd; see `vitreous serve --help`"),
    ],
)
def test_wrong_option_is_refused(words: tuple[str, str], error: str, run: Path, cli: Cli) -> None:
    said = cli("serve", run, "--port", "0", *words) if "--port" not in words else cli("serve", run, *words)
    assert (said.code, said.out, said.err) == (2, "", f"{error}\n")


def test_empty_key_file_is_refused(run: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n")
    said = cli("serve", run, "--api-key-file", tmp_path / "keys", "--port", "0")
    assert (said.code, said.err) == (2, f"api_key_file={tmp_path / 'keys'}: has no key; write one per line\n")
    said = cli("serve", run, "--api-key-file", tmp_path / "gone", "--port", "0")
    assert (said.code, said.err) == (
        2,
        f"{tmp_path / 'gone'}: No such file or directory; check the path and its permissions\n",
    )


def test_missing_package_is_named(run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    said = cli("serve", run)
    assert (said.code, said.err) == (
        2,
        "serve: needs python_multipart, which is not installed; run `pip install 'vitreous[serve]'`\n",
    )


def test_unit_of_systemd_is_valid_and_starts_this_server(run: Path, cli: Cli, tmp_path: Path) -> None:
    own = Path(shutil.copytree(run, tmp_path / 'a "b" $c %d'))
    words = ("--allow-host", "b.org", "--allow-host", "c.org", "--allow-urls", "a.org", "10.0.0.5")
    said = cli("serve", own, "--write", "systemd", "--port", "8123", "--timeout", "7", *words)
    assert (said.code, said.err) == (0, "")
    assert said.out == "vitreous.service: its first lines say how to start it\n"
    unit = (tmp_path / "vitreous.service").read_text()
    hosts = '"--allow-host" "b.org" "--allow-host" "c.org" "--allow-urls" "a.org" "--allow-urls" "10.0.0.5"'
    escaped = str(own).replace('"', '\\"').replace("$", "$$").replace("%", "%%")
    assert f'"-m" "vitreous" "serve" "{escaped}" "--port" "8123" "--timeout" "7" {hosts}\n' in unit
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "vitreous.service")]
        checked = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert (checked.returncode, [line for line in checked.stderr.splitlines() if "vitreous" in line]) == (0, [])


@pytest.fixture
def context(run: Path, cli: Cli, tmp_path: Path) -> Path:
    """The folder that `--write docker` makes."""
    said = cli("serve", run, "--write", "docker", "--max-mb", "3")
    assert (said.code, said.err) == (0, "")
    assert said.out == "vitreous-docker: its first lines say how to start it\n"
    return tmp_path / "vitreous-docker"


def test_docker_folder_has_all_that_its_file_copies(context: Path, run: Path) -> None:
    text = (context / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+) \.$", text, re.MULTILINE) for word in line.split()]
    assert copied == ["requirements.txt", "."]
    assert {"torch", "pillow", "fastapi", "uvicorn", "python-multipart"} <= {
        re.split(r"[<>=;!\[]", line)[0] for line in (context / "requirements.txt").read_text().splitlines()
    }
    assert "extra" not in (context / "requirements.txt").read_text()
    (command,) = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    words = ["python", "-m", "vitreous", "serve", f"models/{run.name}", "--max-mb", "3"]
    assert json.loads(command) == [*words, "--host", "0.0.0.0", "--port", "8000"]
    assert not list(context.rglob("__pycache__"))


def test_docker_folder_is_not_overwritten(context: Path, run: Path, cli: Cli) -> None:
    said = cli("serve", run, "--write", "docker")
    assert said.code == 2
    way_out = "delete it, or run the command in another folder"
    assert said.err == f"write=docker: vitreous-docker exists here; {way_out}\n"


@pytest.mark.slow
def test_command_of_the_docker_folder_serves(context: Path, run: Path, image: Path, tmp_path: Path) -> None:
    (command,) = re.findall(r"^CMD (.+)$", (context / "Dockerfile").read_text(), re.MULTILINE)
    words = [sys.executable, *json.loads(command)[1:]]
    words[-1], words[-3] = "0", "127.0.0.1"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            words,
            cwd=context,
            env=os.environ | {"PYTHONPATH": str(context)},
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
        )
        try:
            server = wait_until_it_serves(process, tmp_path / "log")
            status, answer = post(server.url, image.read_bytes())
            assert (status, answer["model"]) == (200, run.name)
            assert answer["predictions"][0]["label"]
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
