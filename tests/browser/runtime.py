"""JavaScript -> its result in Python, from a headless Chromium that is driven through a pipe."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any, Self

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
    "--disable-dev-shm-usage",  # which is too small in containers
)  # fmt: skip

LAUNCHER = """
import os, sys
for number in (1, 2):
    os.dup2(int(sys.argv[number]), number + 2)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from descriptor 3 and writes answers to descriptor 4."""


class Browser:
    """A headless Chromium with one page; the protocol is that of its developer tools.

    Attributes:
        problems: Errors of scripts, and what the policy of a page has refused.
    """

    def __init__(self, profile: Path) -> None:
        (read, self._to), (self._from, written) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, written)]  # not 3 and 4, where they have to go
        command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *map(str, ends), *command],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (read, written, *ends):
            os.close(end)
        self._buffer, self._number, self._session, self._is_loaded = b"", 0, "", False
        self.problems: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, page: Path | str) -> None:
        """Open a file, as a reader does who double-clicks it, or an address."""
        self.problems.clear()
        self._is_loaded = False
        self._ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not self._is_loaded:
            self._read()

    def set_media(self, kind: str, scheme: str) -> None:
        """Show pages on paper (`print`) or on a screen (empty), in `light` or `dark` colors."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", media=kind, features=features)

    def set_width(self, width: int) -> None:
        """Show pages on a screen of this width in px; below 600, on that of a phone."""
        is_phone = width < 600
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=is_phone)

    def run(self, expression: str) -> Any:
        """Return the value of an expression; a promise is awaited."""
        found = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def compute(self, script: str, data: Any) -> Any:
        """Return what a script gives for `data`; it ends with an expression, of which `await` may be part."""
        *lines, last = script.strip().splitlines()
        body = "\n".join([*lines, f"return {last}"])
        return self.run(f"(async (data) => {{{body}\n}})({json.dumps(data)})")

    def screenshot(self, path: Path) -> None:
        """Save a picture of the page."""
        path.write_bytes(b64decode(self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        content = json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        while content:
            content = content[os.write(self._to, content) :]
        while (answer := self._read()).get("id") != self._number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            received = os.read(self._from, 1 << 20)
            assert received, "Chromium has ended"
            self._buffer += received
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        self._is_loaded |= message.get("method") == "Page.loadEventFired"
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(message["params"]["entry"]["text"])
        return message
