"""URLs -> image files, fetched only from hosts that are listed; private addresses have to be listed too."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http.client import HTTPException as NotHTTPError
from http.client import HTTPResponse
from io import BytesIO
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import SimpleNamespace
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from starlette.exceptions import HTTPException

from vitreous.errors import ConfigError, DecodeError
from vitreous.version import __version__
from vitreous.wording import printable

Take = Callable[[int], None]
"""Counts bytes that a request holds in memory. Raises HTTPException if they are too many."""

_MOST_REDIRECTS, _MOST_CONNECTIONS, _SECONDS = 3, 32, 10.0
_PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?", re.ASCII)
"""Matches a name or an address in lower case, perhaps with a port."""
_NAT64 = IPv6Network("64:ff9b::/96")


class Fetcher:
    """Fetches images from listed hosts.

    A host is a name or an address, and a port unless it is the usual one. A name whose address is private, such as
    127.0.0.1 or 10.0.0.5, is fetched only if that address or its network is listed too. The address that was checked
    is the one that is connected to, so a name cannot change its address in between.

    Raises:
        ConfigError: One of `allowed` is not a host.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._hosts: set[tuple[str, str | None]] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in map(str.lower, allowed):
            host = HOST.fullmatch(bracketed(text))
            network = _network(host["name"].strip("[]") if host else text)
            self._hosts |= {(host["name"], host["port"])} if host else set()
            self._networks += [network] if network else []
            if not host and not network:
                raise ConfigError(
                    f"allow_urls={printable(text)}: is not a host; write its name without https:// and path, as "
                    "images.example.org"
                )
        self._connections = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._tls = ssl.create_default_context()

    def check(self, url: str) -> None:
        """Raise HTTPException 400 for what is not a URL, and 403 for one of a host that is not listed."""
        self._parsed(url)

    async def fetch(self, url: str, take: Take) -> bytes | DecodeError:
        """Return the file at a URL, or why it cannot be fetched, which begins with the URL."""
        try:
            async with self._connections, asyncio.timeout(_SECONDS):
                return await self._follow(url, take)
        except TimeoutError:
            reason = f"took longer than {_SECONDS:g} s"
        except ssl.SSLError:
            reason = "has no valid certificate"
        except OSError:  # the text of the exception has the address, which is nothing that clients should know
            reason = "does not answer"
        except DecodeError as error:
            reason = str(error)
        except HTTPException as error:
            reason = error.detail
        except (NotHTTPError, ValueError):
            reason = "does not answer with a complete file by HTTP"
        return DecodeError(f"{printable(url)}: {reason}")

    def _parsed(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            port, name = parts.port, parts.netloc.rpartition("@")[2].lower()
        except ValueError:
            parts, port, name = SplitResult("", "", "", "", ""), None, ""
        is_plain = url.isascii() and url.isprintable() and not set(' \\"<>^`{|}') & set(url)
        if parts.scheme not in _PORTS or not is_plain or "@" in parts.netloc or not HOST.fullmatch(name):
            raise HTTPException(400, f"urls={printable(url)}: is not a URL; write it as https://HOST/PATH in ASCII")
        host = name.removesuffix(f":{port}")
        is_usual = port in (None, _PORTS[parts.scheme])
        if not {(host, str(port)), *([(host, None)] if is_usual else [])} & self._hosts:
            raise HTTPException(403, f"urls={printable(url)}: this server does not fetch from {printable(name)}")
        return parts

    async def _follow(self, url: str, take: Take) -> bytes:
        """Return the file, also if it is at another URL of the same host. Raises DecodeError otherwise."""
        parts = self._parsed(url)
        for _ in range(_MOST_REDIRECTS + 1):
            answer = await self._ask(parts, take)
            target = answer.getheader("Location")
            if answer.status == 200:
                return answer.read()
            if answer.status not in (301, 302, 303, 307, 308) or target is None:
                raise DecodeError(f"has status {answer.status}")
            url = urljoin(parts.geturl(), target)
            before, after = (parts.scheme, parts.hostname), (urlsplit(url).scheme, urlsplit(url).hostname)
            if before[1] != after[1] or (before[0], after[0]) == ("https", "http"):
                raise DecodeError("redirects to another host, or away from https")
            parts = self._parsed(url)
        raise DecodeError(f"redirects more than {_MOST_REDIRECTS} times")

    async def _ask(self, parts: SplitResult, take: Take) -> HTTPResponse:
        """Return the complete answer of a host."""
        port, tls = parts.port or _PORTS[parts.scheme], self._tls if parts.scheme == "https" else None
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not all(map(self._is_allowed, addresses)):
            raise DecodeError("has a private address, which this server may not fetch from")
        reader, writer = await _connect(addresses, port, tls, parts.hostname)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = (f"Host: {parts.netloc}", f"User-Agent: vitreous/{__version__}", "Accept: image/*")
            writer.write("\r\n".join([f"GET {target} HTTP/1.1", *headers, "Connection: close", "", ""]).encode("ascii"))
            received = bytearray()
            while chunk := await reader.read(1 << 16):
                received += chunk
                _take(take, len(chunk), held=len(received))
        finally:
            writer.transport.abort()
        in_memory: Any = SimpleNamespace(makefile=lambda _: BytesIO(received))  # all that HTTPResponse asks of a socket
        answer = HTTPResponse(in_memory)
        answer.begin()
        return answer

    def _is_allowed(self, text: str) -> bool:
        address = _inner(ip_address(text))
        is_public = address.is_global and not address.is_multicast
        return is_public or any(address in network for network in self._networks)


def _take(take: Take, count: int, held: int) -> None:
    """Count bytes; if they are too many, those of this file are given back, so that other files of a request fit."""
    try:
        take(count)
    except HTTPException:
        take(-held)
        raise


async def _connect(
    addresses: Sequence[str], port: int, tls: ssl.SSLContext | None, name: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that answers; its certificate has to be that of `name`."""
    connect = partial(asyncio.open_connection, port=port, ssl=tls, server_hostname=name if tls else None)
    for address in addresses[:-1]:
        with suppress(OSError):
            return await connect(address)
    return await connect(addresses[-1])


def bracketed(text: str) -> str:
    """Return a host as URLs have it: an IPv6 address in brackets."""
    return f"[{text}]" if text.count(":") > 1 and "[" not in text else text


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address contains, if any."""
    if isinstance(address, IPv6Address):
        translated = IPv4Address(address.packed[-4:]) if address in _NAT64 else None
        return address.ipv4_mapped or address.sixtofour or translated or address
    return address
