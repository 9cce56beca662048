"""The files of docs/clusters: their commands exist, their volumes and names fit together, and a run is continued."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.contract.sources import ROOT

from vitreous.cli.main import app, spell_out_keys

FOLDER = ROOT / "docs" / "clusters"
SBATCH, JOBSET, RAYJOB = "train.sbatch", "train-jobset.yaml", "predict-rayjob.yaml"


def document(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def values(node: Any, key: str) -> list[Any]:
    """Return the values of a key at any depth."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node[key]] if isinstance(node, dict) and key in node else []
    return own + [value for part in inner for value in values(part, key)]


def check_command(words: list[str]) -> None:
    """Fail if the command line does not accept these words after `vitreous`."""
    app.parse_args(spell_out_keys(words), exit_on_error=False, print_error=False)


@pytest.fixture
def fakes(tmp_path: Path) -> dict[str, str]:
    """An environment in which Slurm's programs and torchrun print their arguments, one per line."""
    programs = {
        "srun": 'exec "$@"',
        "torchrun": 'printf "%s\\n" "$@"',
        "scontrol": '[[ "$*" == "show hostnames node[7-8]" ]] && printf "node7\\nnode8\\n"',
    }
    (tmp_path / "bin").mkdir()
    for name, line in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{line}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "321"}
    return {**os.environ, **slurm, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def torchrun(command: list[str], environment: dict[str, str]) -> tuple[list[str], list[str]]:
    """Run a script with the fakes; return the arguments of torchrun, and the words after `-m vitreous`."""
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=True)
    words = done.stdout.splitlines()
    at = words.index("-m")
    assert words[at + 1] == "vitreous"
    check_command(words[at + 2 :])
    return words[:at], words[at + 2 :]


def test_sbatch_script_trains_and_then_continues(fakes: dict[str, str], tmp_path: Path) -> None:
    command = ["bash", str(FOLDER / SBATCH), "my photos", str(tmp_path / "a run"), "--optim.lr", "0.1"]
    options, words = torchrun(command, fakes)
    assert words == ["train", "my photos", "--out", str(tmp_path / "a run"), "--optim.lr", "0.1"]
    assert options[options.index("--rdzv-endpoint") + 1] == "node7:29500"
    assert options[options.index("--nnodes") + 1] == "2"
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "config.yaml").touch()
    assert torchrun(command, fakes)[1] == ["train", "--resume", str(tmp_path / "a run")]
    assert subprocess.run(command[:3], env=fakes, capture_output=True, check=False).returncode != 0


def test_jobset_trains_and_then_continues(fakes: dict[str, str], tmp_path: Path) -> None:
    found = document(JOBSET)
    job = found["spec"]["replicatedJobs"][0]
    spec = job["template"]["spec"]
    script = values(found, "command")[0][2].replace("/runs/", f"{tmp_path}/")
    options, words = torchrun(["bash", "-c", script], {**fakes, "JOB_COMPLETION_INDEX": "0"})
    assert words[:2] == ["train", "/data/photos"]
    assert int(options[options.index("--nnodes") + 1]) == spec["parallelism"] == spec["completions"]
    name = found["metadata"]["name"]
    assert options[options.index("--rdzv-endpoint") + 1] == f"{name}-{job['name']}-0-0.{name}:29500"
    assert options[-1] == "is_host=1"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "config.yaml").touch()
    options, words = torchrun(["bash", "-c", script], {**fakes, "JOB_COMPLETION_INDEX": "1"})
    assert words == ["train", "--resume", f"{tmp_path}/photos"]
    assert options[-1] == "is_host=0"


def test_entrypoint_of_the_ray_job_is_a_command() -> None:
    found = document(RAYJOB)["spec"]
    words = shlex.split(found["entrypoint"])
    assert words[0] == "vitreous"
    check_command(words[1:])
    group = found["rayClusterSpec"]["workerGroupSpecs"][0]
    count = int(words[words.index("--workers") + 1])
    assert count == group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    version = found["rayClusterSpec"]["rayVersion"]
    assert f"rayproject/ray:{version}-" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [JOBSET, RAYJOB])
def test_every_mounted_volume_exists(name: str) -> None:
    found = document(name)
    mounted = {mount["name"] for mounts in values(found, "volumeMounts") for mount in mounts}
    assert mounted == {volume["name"] for volumes in values(found, "volumes") for volume in volumes}
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", volume) for volume in mounted)


@pytest.mark.parametrize("script", ["sbatch", "jobset"])
def test_scripts_are_valid_bash(script: str) -> None:
    text = (
        (FOLDER / SBATCH).read_text(encoding="utf-8")
        if script == "sbatch"
        else values(document(JOBSET), "command")[0][2]
    )
    assert subprocess.run(["bash", "-n"], input=text, encoding="utf-8", check=False).returncode == 0


def test_every_file_is_explained() -> None:
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    assert {path.name for path in FOLDER.iterdir()} == set(re.findall(r"\]\(clusters/([\w.-]+)\)", page))
