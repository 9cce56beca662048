"""`vitreous serve` -> a server that answers for trained models, until it is stopped."""

import logging
import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from vitreous.cli.options import Count
from vitreous.cli.screen import Screen
from vitreous.data.decoding.limits import VARIABLE, max_pixels
from vitreous.errors import ConfigError, optional_module
from vitreous.paths import expanded
from vitreous.ranges import Interval, check_fields
from vitreous.training.machine.device import resolve_device
from vitreous.use.serve.deploy import write_docker, write_systemd
from vitreous.wording import plural

_MOST_PIXELS = "50_000_000"
_Port = Annotated[Count, Interval("[0, 2**16)")]
_Count = Annotated[Count, Interval("[1, 2**20)")]


@Parameter(name="*")
@dataclass(frozen=True)
class ServeOptions:
    """Options of `vitreous serve`.

    Attributes:
        port: Port to listen at; 0 takes a free one.
        host: Address to listen at; 0.0.0.0 makes the server reachable from other machines.
        api_key_file: File with API keys, one per line; each request then needs one. VITREOUS_API_KEY gives one key.
        coverage: Probability that a set contains the true class; default: 0.95 for runs that can have sets.
        max_mb: Largest request in MB.
        max_waiting: Images that may wait before requests are refused.
        timeout: Seconds until a request is refused.
        keep_versions: Versions of a model that answer, when new ones have replaced it.
        allow_host: Name by which clients reach the server, e.g. through a proxy; may be repeated. Without API keys,
            requests to other names than localhost are refused by a server that listens at a loopback address, or has
            this option.
        allow_urls: Hosts from which images may be fetched for requests that give URLs; private addresses too.
        device: auto, cpu, cuda, cuda:1 or mps.
        write: Do not start a server, but write the files that start one in a container, or as a service of systemd.
    """

    port: _Port = 8000
    host: str = "127.0.0.1"
    api_key_file: Path | None = None
    coverage: float | None = None
    max_mb: _Count = 32
    max_waiting: _Count = 512
    timeout: _Count = 60
    keep_versions: _Count = 1
    allow_host: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = ()
    allow_urls: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = ()
    device: str = "auto"
    write: Literal["docker", "systemd"] | None = None


def serve(runs: Annotated[list[Path], Parameter(negative="")], /, *, options: ServeOptions = ServeOptions()) -> None:
    """Answer requests for predictions of one or more models over HTTP, with a page for people.

    Args:
        runs: Run folders, model.safetensors files, or hf://organization/name.
        options: All other options.
    """
    for package in ("fastapi", "uvicorn", "python_multipart"):
        optional_module(package, "serve", "run `pip install 'vitreous[serve]'`")
    from vitreous.use.serve.fetch import Fetcher
    from vitreous.use.serve.guard import LOG, Limits, host_names, is_loopback
    from vitreous.use.serve.models import COVERAGE, Models, named
    from vitreous.use.serve.server import bind, run_server

    check_fields(options, "serve")
    screen, keys, paths = Screen(), _keys(options.api_key_file), named(runs)
    hosts, fetcher = host_names(options.allow_host), Fetcher(options.allow_urls) if options.allow_urls else None
    if options.write == "docker" and options.api_key_file:
        way_out = "leave it out, and start the container with --env VITREOUS_API_KEY"
        raise ConfigError(f"api_key_file={options.api_key_file}: is not copied into a container; {way_out}")
    if options.write == "systemd" and keys and not options.api_key_file:
        raise ConfigError("VITREOUS_API_KEY: does not reach a service; write the key to a file, and add --api-key-file")
    if options.write:
        write = write_docker if options.write == "docker" else write_systemd
        screen.say(f"{write(paths, _words(options))}: its first lines say how to start it")
        return
    os.environ.setdefault(VARIABLE, _MOST_PIXELS)
    max_pixels()  # raises an error if the variable is wrong
    with bind(options.host, options.port) as where:
        models = Models(paths, resolve_device(options.device), options.coverage, options.keep_versions)
        for name, (model,) in models.versions.items():
            sets = f"sets of classes with coverage {COVERAGE if options.coverage is None else options.coverage:g}"
            sets = f"no sets ({model.without_sets})" if model.without_sets else sets
            classes = plural(len(model.predictor.classes), "class", "classes")
            screen.say(f"{name}: version {model.version}, {classes}, {sets}")
        host = f"[{options.host}]" if ":" in options.host else options.host
        screen.say(f"http://{host}:{where.getsockname()[1]}/ is a page for people; programs send images to /predict")
        is_local = is_loopback(where.getsockname()[0])
        if not keys and not is_local:
            screen.say_notes(["other machines can use the models without a key; --api-key-file requires one"])
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
        LOG.setLevel(logging.INFO)
        limits = Limits(options.max_mb << 20, options.max_waiting, options.timeout)
        names = {*hosts, options.host.lower()} if not keys and (hosts or is_local) else None
        run_server(models, where, limits, keys, names, fetcher)


def _keys(file: Path | None) -> list[str]:
    """Return the API keys in a file and in the environment."""
    try:
        keys = [] if file is None else expanded(file).read_text(encoding="utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise ConfigError(f"api_key_file={file}: is not UTF-8; save it as UTF-8") from error
    if file is not None and not keys:
        raise ConfigError(f"api_key_file={file}: has no key; write one per line")
    return [*keys, *filter(None, [os.environ.get("VITREOUS_API_KEY")])]


def _words(options: ServeOptions) -> list[str]:
    """Return the options that differ from their defaults, as words of the command line."""
    default, words = ServeOptions(), []
    for field in fields(options):
        value = getattr(options, field.name)
        is_inside = options.write == "docker" and field.name in ("host", "port")  # those of a container are its own
        if field.name != "write" and not is_inside and value != getattr(default, field.name):
            given = value if isinstance(value, tuple) else (value,)
            texts = (expanded(each).absolute() if isinstance(each, Path) else each for each in given)
            words += [word for text in texts for word in (f"--{field.name.replace('_', '-')}", str(text))]
    return words
