"""`{"urls": […]}`: images are fetched only from listed hosts, over checked addresses, within limits."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.unit.use.serve.conftest import encoded

from vitreous.errors import ConfigError, DecodeError
from vitreous.use.run import Run

pytest.importorskip("fastapi")

from starlette.exceptions import HTTPException

from vitreous.use.serve import fetch
from vitreous.use.serve.fetch import Fetcher

IMAGE = encoded(3)


class Host(BaseHTTPRequestHandler):
    """Answers by the path; the server has a list of what was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))
        where, _, rest = self.path[1:].partition("/")
        if where == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif where == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (IMAGE[:50], IMAGE[50:], b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        elif where == "slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif where == "garbage":
            self.wfile.write(b"SSH-2.0-nothing\r\n")
        else:
            self.send_response(200 if where in ("image", "short", "large") else 404)
            content = bytes(9_000) if where == "large" else IMAGE
            self.send_header("Content-Length", str(len(content) + (where == "short")))
            self.end_headers()
            self.wfile.write(content)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[ThreadingHTTPServer]:
    """A host at 127.0.0.1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.handle_error = lambda *_: None  # a client that gives up
    server.asked, server.at = [], f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(url: str, *allowed: str, most: int = 1 << 20) -> bytes | str:
    """Return what is fetched, or why not."""
    left = most

    def take(count: int) -> None:
        nonlocal left
        left -= count
        if left < 0:
            raise HTTPException(413, "too many bytes")

    found = asyncio.run(Fetcher(allowed).fetch(url, take))
    return str(found) if isinstance(found, DecodeError) else found


@pytest.mark.parametrize("path", ["image/a.png?size=3", "chunked", "to//image", "to//to//to//image"])
def test_file_is_fetched_whole(path: str, host: Any) -> None:
    assert fetched(f"http://{host.at}/{path}", host.at) == IMAGE
    assert host.asked[0] == (f"/{path}", host.at)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "has status 404"),
        ("short", "does not answer with a complete file by HTTP"),
        ("garbage", "does not answer with a complete file by HTTP"),
        ("large", "too many bytes"),
        ("to//to//to//to//image", "redirects more than 3 times"),
        ("to/http://example.org/a.png", "redirects to another host, or away from https"),
        ("to/file:///etc/passwd", "redirects to another host, or away from https"),
        ("to/https://[", "does not answer with a complete file by HTTP"),
    ],
)
def test_what_cannot_be_fetched_has_its_reason(path: str, reason: str, host: Any) -> None:
    url = f"http://{host.at}/{path}"
    assert fetched(url, host.at, "example.org", most=5_000) == f"{url}: {reason}"


def test_redirect_to_another_port_of_the_host_is_refused_unless_listed(host: Any) -> None:
    url = f"http://{host.at}/to/http://127.0.0.1:9/a"
    assert fetched(url, host.at) == f"{url}: urls=http://127.0.0.1:9/a: this server does not fetch from 127.0.0.1:9"


def test_slow_host_is_given_up(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_SECONDS", 0.2)
    began = time.monotonic()
    assert fetched(f"http://{host.at}/slow", host.at).endswith(": took longer than 0.2 s")
    assert time.monotonic() - began < 4


def test_host_that_does_not_answer_is_named_without_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        at = f"localhost:{free.getsockname()[1]}"
    assert fetched(f"http://{at}/", at, "127.0.0.1", "::1") == f"http://{at}/: does not answer"


def test_name_with_a_private_address_is_refused_unless_the_address_is_listed_too(host: Any) -> None:
    at = f"localhost:{host.server_port}"
    url = f"http://{at}/image"
    assert fetched(url, at) == f"{url}: has a private address, which this server may not fetch from"
    assert fetched(url, at, "10.0.0.0/8").endswith("may not fetch from")
    assert host.asked == []
    assert fetched(url, at, "127.0.0.0/8", "::1") == IMAGE


PRIVATE = [
    *("127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
    *("::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_recognized_in_every_form(address: str) -> None:
    assert not Fetcher(["example.org"])._is_allowed(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert Fetcher(["example.org"])._is_allowed(address)


def test_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, connected = iter(["93.184.215.14", "127.0.0.1"]), []

    async def resolve(self: object, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 80))]

    async def connect(address: str, **_: object) -> Any:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    monkeypatch.setattr(asyncio, "open_connection", connect)
    assert fetched("http://example.org/", "example.org").endswith("does not answer")
    assert connected == ["93.184.215.14"]  # a second look-up would have found 127.0.0.1
    assert fetched("http://example.org/", "example.org").endswith("may not fetch from")
    assert len(connected) == 1


def test_one_private_address_of_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(self: object, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, 80)) for at in ("93.184.215.14", "10.0.0.1")]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    assert fetched("http://example.org/", "example.org").endswith("may not fetch from")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "a.png",
            "/a.png",
            "ftp://example.org/",
            "file:///etc/passwd",
            "gopher://example.org/",
            "https://",
            "//example.org/",
        ),
        *(
            "https://user@example.org/",
            "https://example.org@10.0.0.1/",
            "https://example.org\\@10.0.0.1/",
            "https://[::1",
        ),
        *(
            "https://example.org/a b",
            "https://example.org/ä",
            "https://example.org/\r\nHost: b",
            "https://example.org:99999/",
        ),
        *("https://exa\tmple.org/", "https://ex%61mple.org/", "https://example.org:/", "https://example.org:-1/"),
    ],
)
def test_what_is_not_a_plain_url_is_refused(url: str) -> None:
    with pytest.raises(HTTPException) as refused:
        Fetcher(["example.org"]).check(url)
    assert refused.value.status_code == 400
    assert refused.value.detail.isprintable()
    assert refused.value.detail.endswith(": is not a URL; write it as https://HOST/PATH in ASCII")


@pytest.mark.parametrize(
    ("url", "allowed", "is_listed"),
    [
        ("https://example.org/a", ["example.org"], True),
        ("http://EXAMPLE.org:80/a", ["Example.ORG"], True),
        ("https://example.org:8443/", ["example.org"], False),
        ("https://example.org:80/", ["example.org"], False),
        ("https://example.org:8443/", ["example.org:8443"], True),
        ("https://example.org/", ["example.org:8443"], False),
        ("https://sub.example.org/", ["example.org"], False),
        ("https://example.org./", ["example.org"], False),
        ("https://example.org.evil/", ["example.org"], False),
        ("http://10.0.0.5/", ["10.0.0.5"], True),
        ("http://10.0.0.6/", ["10.0.0.0/8"], False),
        ("http://167772165/", ["10.0.0.5"], False),
        ("http://[::1]:8000/", ["[::1]:8000"], True),
        ("http://[fd00::1]/", ["fd00::1"], True),
    ],
)
def test_only_listed_hosts_and_ports_are_fetched_from(url: str, allowed: list[str], is_listed: bool) -> None:
    if is_listed:
        Fetcher(allowed).check(url)
        return
    with pytest.raises(HTTPException) as refused:
        Fetcher(allowed).check(url)
    assert refused.value.status_code == 403


@pytest.mark.parametrize(
    "text", ["https://example.org", "example.org/a", "*.example.org", "*", "", "a b", "10.0.0.0/99", "ä.org"]
)
def test_what_is_not_a_host_cannot_be_listed(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a host; write its name without https:// and path"):
        Fetcher(["example.org", text])


def test_certificate_is_verified(host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    host.socket = context.wrap_socket(host.socket, server_side=True)
    at = f"localhost:{host.server_port}"
    url = f"https://{at}/image"
    assert fetched(url, at, "127.0.0.1", "::1") == f"{url}: has no valid certificate"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
    assert fetched(url, at, "127.0.0.1", "::1") == IMAGE
    other = f"https://{host.at}/image"  # the certificate is that of localhost
    assert fetched(other, host.at) == f"{other}: has no valid certificate"


def test_images_at_urls_are_classified_like_files(
    host: Any, run: Run, models: Any, client_of: Callable[..., Any]
) -> None:
    client = client_of(models, fetcher=Fetcher([host.at]))
    urls = [f"http://{host.at}/{path}" for path in ("image", "missing")]
    answer = client.post("/predict", json={"urls": urls})
    first, second = answer.json()["predictions"]
    expected = client.post("/predict", content=IMAGE).json()["predictions"][0]
    assert first == expected | {"image": urls[0]}
    assert (second["image"], second["error"], second["label"]) == (urls[1], f"{urls[1]}: has status 404", "")
    answer = client.post("/predict", json={"urls": urls[1:]})
    assert (answer.status_code, answer.json()["error"]) == (422, f"{urls[1]}: has status 404")
    answers = [client.post("/explain", json={"urls": [url]}) for url in urls]
    assert [each.status_code for each in answers] == [200, 422]


def test_urls_are_refused_before_anything_is_fetched(host: Any, models: Any, client_of: Callable[..., Any]) -> None:
    urls = [f"http://{host.at}/image", "https://other.example/a.png"]
    answer = client_of(models).post("/predict", json={"urls": urls})
    assert (answer.status_code, answer.json()["error"]) == (
        403,
        f"urls={urls[0]}: this server fetches no images; send the files, or start it with --allow-urls HOST",
    )
    answer = client_of(models, fetcher=Fetcher([host.at])).post("/predict", json={"urls": urls})
    assert (answer.status_code, answer.json()["error"]) == (
        403,
        "urls=https://other.example/a.png: this server does not fetch from other.example",
    )
    assert host.asked == []


def test_fetched_bytes_count_as_those_of_the_request(host: Any, models: Any, client_of: Callable[..., Any]) -> None:
    from vitreous.use.serve.guard import Limits

    client = client_of(models, Limits(max_bytes=10_000), fetcher=Fetcher([host.at]))
    answer = client.post(
        "/predict", json={"urls": [f"http://{host.at}/{path}" for path in ("image", "large", "large")]}
    )
    errors = [each["error"] for each in answer.json()["predictions"]]
    assert errors[0] == ""
    assert any("bytes: at most 10,000 bytes are accepted" in error for error in errors[1:])
    assert client.app._held_bytes == 0
