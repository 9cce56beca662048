"""Models -> a process that answers at an address until it is asked to stop, and then finishes what it has begun."""

import socket
import threading
from collections.abc import Collection, Sequence

import uvicorn

from vitreous.errors import ConfigError
from vitreous.training.machine.signals import stop_signals_handled
from vitreous.use.serve.app import Service, create_app
from vitreous.use.serve.fetch import Fetcher
from vitreous.use.serve.guard import Limits, log
from vitreous.use.serve.models import Models

_RENEWED_EVERY_S = 1.0


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address; port 0 takes a free one. Raises ConfigError if that is not possible."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address to some of them
        raise ConfigError(
            f"port={port}: cannot listen at {host} ({reason}); choose another --port or --host"
        ) from error


def run_server(
    models: Models,
    where: socket.socket,
    limits: Limits,
    keys: Sequence[str],
    hosts: Collection[str] | None,
    fetcher: Fetcher | None,
) -> None:
    """Answer requests until SIGTERM, SIGHUP or Ctrl-C; then refuse new ones, and answer those that have begun."""
    service = Service(models, limits, needs_key=bool(keys), fetcher=fetcher)
    app = create_app(service, limits, keys, hosts)
    patience_s = int(limits.seconds) + 5
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=patience_s
    )
    server, is_over = uvicorn.Server(config), threading.Event()

    def renew() -> None:
        while not is_over.wait(_RENEWED_EVERY_S):
            for event in models.renew():
                log(event)

    def stop(*_: object) -> None:
        server.should_exit = True

    threading.Thread(target=renew, name="vitreous-renew", daemon=True).start()
    with stop_signals_handled(stop):
        server.run(sockets=[where])
    is_over.set()
    service.close()
