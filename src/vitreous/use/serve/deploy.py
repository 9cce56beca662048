"""Served runs -> files that start the same server in a container, or as a service of systemd."""

import getpass
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import requires
from pathlib import Path

from vitreous import atomic
from vitreous.errors import ConfigError
from vitreous.model.weights.reading import hub_names
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.predict.predictor import find_model

DOCKER, SYSTEMD = Path("vitreous-docker"), Path("vitreous.service")
_DOCKERFILE = """# In this folder:
#   docker build --tag vitreous-serve .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --publish 127.0.0.1:8000:8000 vitreous-serve
# `--env VITREOUS_API_KEY` in the second command requires a key. `--build-arg PIP_EXTRA_INDEX_URL=ADDRESS` in the first
# one adds a place where pip looks for packages, e.g. for a build of torch for CPUs, which is smaller.
FROM python:{version}-slim
ARG PIP_EXTRA_INDEX_URL
WORKDIR /serve
COPY requirements.txt .
RUN pip install --no-cache-dir --requirement requirements.txt
COPY . .
ENV MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready')"]
CMD {command}
"""
_UNIT = """# sudo cp {name} /etc/systemd/system/ && sudo systemctl enable --now {name}
[Unit]
Description=vitreous serve
After=network.target

[Service]
ExecStart={command}
User={user}
Restart=on-failure
TimeoutStopSec=90
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
Environment=MPLCONFIGDIR=/tmp

[Install]
WantedBy=multi-user.target
"""


def write_docker(runs: Mapping[str, Path], options: Sequence[str]) -> Path:
    """Write a folder with a Dockerfile, this version of vitreous and the models.

    Raises:
        ConfigError: The folder exists.
        SaveError: It could not be written.
    """
    if DOCKER.exists():
        raise ConfigError(f"write=docker: {DOCKER} exists here; delete it, or run the command in another folder")

    def fill(folder: Path) -> None:
        for name, run in runs.items():
            file = find_model(run, or_best=True)
            target, source = RunFolder(folder / "models" / name), RunFolder(file.parent)
            target.path.mkdir(parents=True)
            shutil.copyfile(file, target.model)
            for each, copy in ((source.familiarity, target.familiarity), (source.outputs, target.outputs)):
                if each.is_file():
                    shutil.copyfile(each, copy)
        package = Path(__file__).parents[2]
        shutil.copytree(package, folder / "vitreous", ignore=shutil.ignore_patterns("__pycache__"))
        needed = [text for text in requires("vitreous") or () if "extra" not in text or "serve" in text]
        lines = [text.partition(";")[0] if "extra" in text else text for text in needed]
        (folder / "requirements.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
        words = ["python", "-m", "vitreous", "serve", *(f"models/{name}" for name in runs)]
        command = json.dumps([*words, *options, "--host", "0.0.0.0", "--port", "8000"])
        text = _DOCKERFILE.format(version=f"{sys.version_info.major}.{sys.version_info.minor}", command=command)
        (folder / "Dockerfile").write_text(text, encoding="utf-8")

    atomic.write_folder(DOCKER, fill)
    return DOCKER


def write_systemd(runs: Mapping[str, Path], options: Sequence[str]) -> Path:
    """Write a unit that starts this installation of vitreous as the current user. Raises SaveError if that fails."""
    words = [
        sys.executable,
        "-m",
        "vitreous",
        "serve",
        *(hub_names.shown(run) if hub_names.name_in(run) else str(run.resolve()) for run in runs.values()),
        *options,
    ]
    command = " ".join(map(_quoted, words))
    atomic.write_text(SYSTEMD, _UNIT.format(name=SYSTEMD, command=command, user=getpass.getuser()))
    return SYSTEMD


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
