"""Words of `vitreous serve` -> a process that serves at a free port; requests to it -> status and JSON."""

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Server:
    """A running server.

    Attributes:
        process: Its process.
        url: Its address, without a slash at the end.
        lines: What it has printed, as it arrives.
        log: The file with its log.
    """

    process: "subprocess.Popen[str]"
    url: str
    lines: list[str] = field(default_factory=list)
    log: Path = Path()


def post(url: str, content: bytes, key: str = "") -> tuple[int, Any]:
    """Send an image to `/predict` on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("POST", "/predict", content, {"Authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@contextmanager
def serving(*words: object, port: int = 0, **environment: str) -> Iterator[Server]:
    """Start a server, by default at a free port, wait until it listens, and stop it at the end."""
    command = [sys.executable, "-m", "vitreous", "serve", *map(str, words), "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, encoding="utf-8", env=os.environ | environment
        )
        try:
            yield wait_until_it_serves(process, Path(folder) / "log")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=60)
            if process.stdout is not None:
                process.stdout.close()


def wait_until_it_serves(process: "subprocess.Popen[str]", log: Path) -> Server:
    """Return the server once it has printed its address."""
    assert process.stdout is not None
    timer = threading.Timer(240, process.kill)
    timer.start()
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if found := re.match(r"(http://\S+)/ ", line):
            timer.cancel()
            return Server(process, found[1], lines, log)
    raise AssertionError((lines, log.read_text(encoding="utf-8")))
