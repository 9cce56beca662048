"""Files by repository -> a hub on the loopback interface that serves them, drops connections, lies, or stalls."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "a1" * 20


@dataclass
class Hub:
    """A hub with one commit per repository.

    Attributes:
        repos: Content by file name, by repository.
        url: Its address.
        drops: Number of downloads to break off in the middle.
        lies: Names of files that are served with other bytes of the same length.
        stalls: Accept requests and never answer them.
        stalls_heads: Answer everything except requests for the size of a file.
        stalls_within: Stop in the middle of a file and keep the connection open.
        requests: Method, path and `Range` header of all requests.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    url: str = ""
    drops: int = 0
    lies: set[str] = field(default_factory=set)
    stalls: bool = False
    stalls_heads: bool = False
    stalls_within: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(repos: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """Serve a hub for a `with` block."""
    hub = Hub(repos)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.hub.stalls or (self.hub.stalls_heads and self.command == "HEAD"):
            self.hub.closing.wait(60)
            return
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/(.+?)(?:/revision/([^/]+))?", path):
            self._describe(match[1])
        elif match := re.fullmatch(r"/(.+)/resolve/([^/]+)/([^/]+)", path):
            self._send_file(match[1], match[3])
        else:
            self._send(404, b"")

    def _describe(self, repo: str) -> None:
        files = self.hub.repos.get(repo)
        if files is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        self._send(200, json.dumps({"id": repo, "sha": REVISION, "siblings": siblings}).encode())

    def _send_file(self, repo: str, name: str) -> None:
        content = self.hub.repos.get(repo, {}).get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        tag = (
            hashlib.sha256(content).hexdigest() if name.endswith(".safetensors") else hashlib.sha1(content).hexdigest()
        )
        if name in self.hub.lies:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        code, start = 200, 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            code, headers["Content-Range"] = 206, f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(code, content[start:], headers, breaks=name.endswith(".safetensors"))

    def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None, *, breaks: bool = False) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if breaks and (self.hub.drops or self.hub.stalls_within):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if self.hub.stalls_within:
                self.hub.closing.wait(60)
            else:
                self.hub.drops -= 1
                time.sleep(0.05)
            self.close_connection = True
            return
        self.wfile.write(body)
