"""Parts on a Ray cluster of this machine: the same tables, also if a worker is killed in the middle."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.use.batch.conftest import Begin

from vitreous.errors import ConfigError
from vitreous.use.batch.cluster import connected
from vitreous.use.batch.write import Engine

pytest.importorskip("ray", reason="Ray is not installed")
psutil = pytest.importorskip("psutil", reason="psutil finds the processes of Ray")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets and processes to the system


def actors() -> list[int]:
    """Return the process ids of the actors that this process has started."""
    below = psutil.Process().children(recursive=True)
    return [process.pid for process in below if "ray::_Classifier" in " ".join(process.cmdline())]


def test_ray_writes_the_same_tables_although_a_worker_is_killed(begin: Begin, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(kind: str, fields: Mapping[str, Any]) -> None:
        if fields["done"] and not killed:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    here = begin(tmp_path / "here")
    there = begin(tmp_path / "there", Engine("ray", "cpu", workers=2), kill_one)
    assert killed
    assert len(there.manifest["done"]) == there.num_parts == 6
    for name in here.manifest["done"]:
        assert (there.path / name).read_bytes() == (here.path / name).read_bytes()


def test_address_without_a_cluster_is_refused_in_one_line() -> None:
    with (
        pytest.raises(ConfigError, match=r"address=127\.0\.0\.1:9: no Ray cluster was"),
        connected("127.0.0.1:9"),
    ):
        pass
