"""HTTP request -> the same request within limits, or a refusal; every answer is secured, logged and counted."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitreous.errors import ConfigError
from vitreous.use.serve.fetch import HOST, bracketed
from vitreous.use.serve.metrics import Metrics
from vitreous.wording import duration, printable

LOG = logging.getLogger("vitreous.serve")
_WITHOUT_KEY = ("/", "/v2/health/live", "/v2/health/ready")
"""What browsers and load balancers ask for."""
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


@dataclass(frozen=True)
class Limits:
    """Bytes of a request, images that are being answered, and time from a request to its answer.

    All requests that are being answered may have 16 times the bytes of one.
    """

    max_bytes: int = 32 << 20
    max_waiting: int = 512
    seconds: float = 60.0


class Guard:
    """The application within limits. Requests need one of the keys, unless there are none.

    Requests that another website makes a browser send are refused, and no answer allows other websites to read it. With
    `hosts`, which `host_names` returns, requests to other names than these and localhost are refused too: a website may
    point its own name to this machine (DNS rebinding), and is the same website for a browser then.

    What the application writes to `scope["noted"]` is logged, and bytes that it holds for the request in addition to
    the body are counted by `scope["take"]`.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, keys: Sequence[str], metrics: Metrics, hosts: Collection[str] | None
    ) -> None:
        self._app, self._limits, self._metrics, self._hosts = app, limits, metrics, hosts
        self._keys = [f"Bearer {key}".encode() for key in keys]
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, size = time.monotonic(), 0, 0
        noted: dict[str, Any] = {}

        def take(count: int) -> None:
            nonlocal size
            size, self._held_bytes = size + count, self._held_bytes + count
            self._check_size(size)

        async def limited() -> Message:
            message = await receive()
            take(len(message.get("body", b"")))
            return message

        async def secured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        scope.update(noted=noted, take=take)
        try:
            async with asyncio.timeout(self._limits.seconds):
                self._admit(scope["method"], scope["path"], Headers(scope=scope))
                await self._app(scope, limited, secured)
        except HTTPException as error:
            await refusal(error)(scope, receive, secured)
        except TimeoutError:
            if not status:
                await refusal(busy(f"the answer took {duration(self._limits.seconds)}"))(scope, receive, secured)
        finally:
            self._held_bytes -= size
            path, seconds = getattr(scope.get("route"), "path", "other"), time.monotonic() - began
            self._metrics.add_request(path, status, seconds)
            request = {"method": scope["method"], "path": path, "status": status, "bytes": size}
            log({**request, "seconds": round(seconds, 4), **noted})

    def _admit(self, method: str, path: str, headers: Headers) -> None:
        """Raise HTTPException for a request without a key, of another website, or with too large a body."""
        host = headers.get("host", "")  # browsers always send it
        if self._hosts is not None and host and not _is_named(host, self._hosts):
            way_out = "start it with --allow-host NAME, or with an API key"
            raise HTTPException(403, f"host={printable(host)}: is not a name of this server; {way_out}")
        given = headers.get("authorization", "").encode("latin-1")
        num_equal = sum(hmac.compare_digest(given, key) for key in self._keys)  # takes the same time for any key
        if self._keys and not num_equal and path not in _WITHOUT_KEY:
            reason = "authorization: is not a known API key; send the header `Authorization: Bearer KEY`"
            raise HTTPException(401, reason, {"WWW-Authenticate": "Bearer"})
        if method == "POST" and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise HTTPException(403, "sec-fetch-site: other websites may not use this server; open its own page")
        length = headers.get("content-length", "")
        self._check_size(int(length) if length.isdecimal() else 0)

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_bytes:
            most = f"at most {self._limits.max_bytes:,} bytes are accepted"
            raise HTTPException(413, f"body={size:,} bytes: {most}; send a smaller image, or fewer of them")
        if self._held_bytes > 16 * self._limits.max_bytes:
            raise busy("requests that are being answered have too many bytes")


def host_names(given: Sequence[str]) -> frozenset[str]:
    """Return names or addresses of hosts in lower case, without brackets. Raises ConfigError for anything else."""
    names = set()
    for text in given:
        found = HOST.fullmatch(bracketed(text.lower()))
        if not found or found["port"]:
            way_out = "write it without https:// and port, as photos.example.org"
            raise ConfigError(f"allow_host={printable(text)}: is not the name of a host; {way_out}")
        names.add(found["name"].strip("[]"))
    return frozenset(names)


def is_loopback(name: str) -> bool:
    """Return True for localhost and addresses that only this machine can reach."""
    with suppress(ValueError):
        return ip_address(name).is_loopback
    return name == "localhost"


def _is_named(host: str, names: Collection[str]) -> bool:
    """Return True if the header `Host` has one of these names, or a name of this machine for itself."""
    found = HOST.fullmatch(host.lower())
    name = found["name"].strip("[]") if found else ""
    return name in names or is_loopback(name)


def busy(reason: str) -> HTTPException:
    """Return the refusal of a request that may be sent again."""
    return HTTPException(503, f"busy: {reason}; try again", {"Retry-After": "1"})


def refusal(error: HTTPException) -> Response:
    """Return the answer to a request that is refused."""
    return Response(json.dumps({"error": error.detail}), error.status_code, error.headers, "application/json")


def log(event: dict[str, Any]) -> None:
    """Write a line of JSON."""
    LOG.info(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **event}))
