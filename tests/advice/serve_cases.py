"""Cases of `use/serve/`: servers that cannot start."""

import os
import shutil
import sys
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.advice.use_cases import finished
from tests.advice.walk import Refusals, case

from vitreous.cli.ship.serve import ServeOptions, serve


@case
def servers_that_cannot_start(folder: Path) -> Refusals:
    pytest.importorskip("fastapi")
    from vitreous.use.serve.fetch import Fetcher
    from vitreous.use.serve.guard import host_names
    from vitreous.use.serve.models import named
    from vitreous.use.serve.server import bind

    run = finished(folder, "my run")
    copy = Path(shutil.copytree(run, folder / "b" / "my run"))
    yield lambda: named([run, copy]), "rename one of the folders"
    assert len(named([run, copy.rename(folder / "b" / "other")])) == 2
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        yield lambda: bind("127.0.0.1", port), "choose another --port or --host"
        bind("127.0.0.1", 0).close()
    yield lambda: Fetcher(["https://images.example.org/a"]), "write its name without https:// and path"
    Fetcher(["images.example.org"])
    yield lambda: host_names(["https://photos.example.org"]), "write it without https:// and port"
    assert host_names(["Photos.example.org", "::1"]) == {"photos.example.org", "::1"}
    keys = folder / "keys"
    keys.write_text("")
    options = ServeOptions(api_key_file=keys, write="systemd")
    yield lambda: serve([run], options=options), "write one per line"
    keys.write_text("secret", encoding="utf-16")
    yield lambda: serve([run], options=options), "save it as UTF-8"
    keys.write_text("secret")
    boxed = ServeOptions(api_key_file=keys, write="docker")
    yield lambda: serve([run], options=boxed), "leave it out, and start the container with --env VITREOUS_API_KEY"
    with patch.dict(sys.modules, {"python_multipart": None}):
        yield lambda: serve([run], options=options), "`pip install 'vitreous[serve]'`"
    with chdir(folder):
        with patch.dict(os.environ, VITREOUS_API_KEY="secret"):
            unit = ServeOptions(write="systemd")
            yield lambda: serve([run], options=unit), "write the key to a file, and add --api-key-file"
            serve([run], options=options)
        serve([run], options=options)
        box = ServeOptions(write="docker")
        serve([run], options=box)
        yield lambda: serve([run], options=box), "delete it, or run the command in another folder"
        shutil.rmtree("vitreous-docker")
        serve([run], options=box)
    assert (folder / "vitreous.service").is_file()
    assert (folder / "vitreous-docker" / "Dockerfile").is_file()
