"""Files by repository -> a hub on the loopback interface that serves them, drops connections, lies, or stalls.

It takes uploads too: like the real one, large files first, and then a commit with the small ones.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

REVISION = "a1" * 20


@dataclass
class Hub:
    """A hub with one commit per repository that can be read.

    Attributes:
        repos: Content by file name, by repository.
        url: Its address.
        revisions: The commit of each repository that was written to.
        private: The private repositories.
        large: Large files that were uploaded, by SHA-256, also before they are part of a commit.
        denies: Refuse everyone who wants to write.
        spoils: Change a byte of each large file that is uploaded.
        drops: Number of downloads to break off in the middle.
        drops_uploads: Number of uploads of large files to break off in the middle.
        lies: Names of files that are served with other bytes of the same length.
        stalls: Accept requests and never answer them.
        stalls_heads: Answer everything except requests for the size of a file.
        stalls_within: Stop in the middle of a file and keep the connection open.
        requests: Method, path and `Range` header of all requests.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    url: str = ""
    revisions: dict[str, str] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    large: dict[str, bytes] = field(default_factory=dict)
    denies: bool = False
    spoils: bool = False
    drops: int = 0
    drops_uploads: int = 0
    lies: set[str] = field(default_factory=set)
    stalls: bool = False
    stalls_heads: bool = False
    stalls_within: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def sent(self) -> list[str]:
        """Return the paths of the requests that send something."""
        asking = ("/paths-info/", "/preupload/", "/objects/batch", "validate-yaml")
        return [path for method, path, _ in self.requests if method in ("POST", "PUT") and not _has(path, asking)]


def _has(path: str, parts: tuple[str, ...]) -> bool:
    return any(part in path for part in parts)


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


def _oid(name: str, content: bytes) -> str:
    """Return the name of a content: SHA-256 for large files, git's for small ones."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self.hub.requests.append((self.command, self.path, None))
        if self.hub.drops_uploads:
            self.hub.drops_uploads -= 1
            self.rfile.read(1000)
            self.close_connection = True
            return
        content = self._body()
        name = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != name:
            self._send(400, b"another checksum")
            return
        self.hub.large[name] = content[:-1] + bytes([content[-1] ^ self.hub.spoils])
        self._send(200, b"")

    def do_POST(self) -> None:
        self.hub.requests.append((self.command, self.path, None))
        body = self._body()
        path = self.path.partition("?")[0]
        writes = "paths-info" not in path and "validate-yaml" not in path
        if writes and (self.hub.denies or not self.headers.get("Authorization")):
            self._send(403, b'{"error": "Forbidden"}', {"X-Error-Message": "Forbidden"})
        elif path == "/api/validate-yaml":
            self._say({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := re.fullmatch(r"/api/models/(.+?)/(preupload|commit|paths-info)/([^/]+)", path):
            getattr(self, f"_{match[2].replace('-', '_')}")(match[1], body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body)["objects"])
        else:
            self._send(404, b"")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _create(self, asked: dict[str, str]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        code = 409 if repo in self.hub.repos else 200
        if code == 200:
            self.hub.repos[repo] = {}
            self.hub.private |= {repo} if asked.get("visibility") == "private" else set()
        self._say({"url": f"{self.hub.url}/{repo}", "name": repo}, code)

    def _preupload(self, repo: str, body: bytes) -> None:
        there = self.hub.repos[repo]
        found = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": _oid(file["path"], there[file["path"]]) if file["path"] in there else None,
            }
            for file in json.loads(body)["files"]
        ]
        self._say({"files": found})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        for one in objects:
            if one["oid"] not in self.hub.large:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/large/{one['oid']}"}}
        self._say({"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.hub.repos[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                self.hub.repos[repo][line["value"]["path"]] = self.hub.large[line["value"]["oid"]]
        revision = self.hub.revisions[repo] = hashlib.sha1(body).hexdigest()
        self._say({"commitUrl": f"{self.hub.url}/{repo}/commit/{revision}", "commitOid": revision})

    def _paths_info(self, repo: str, body: bytes) -> None:
        if repo not in self.hub.repos:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        there, found = self.hub.repos[repo], []
        for name in parse_qs(body.decode())["paths"]:
            if name in there:
                oid, size = _oid(name, there[name]), len(there[name])
                large = {"lfs": {"oid": oid, "size": size, "pointerSize": 9}} if name.endswith(".safetensors") else {}
                found.append({"type": "file", "path": name, "size": size, "oid": oid, **large})
        self._say(found)

    def _say(self, content: object, code: int = 200) -> None:
        self._send(code, json.dumps(content).encode(), {"Content-Type": "application/json"})

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
        revision = self.hub.revisions.get(repo, REVISION)
        self._say({"id": repo, "sha": revision, "private": repo in self.hub.private, "siblings": siblings})

    def _send_file(self, repo: str, name: str) -> None:
        content = self.hub.repos.get(repo, {}).get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        tag = _oid(name, content)
        if name in self.hub.lies:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {
            "ETag": f'"{tag}"',
            "X-Repo-Commit": self.hub.revisions.get(repo, REVISION),
            "Accept-Ranges": "bytes",
        }
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
